"""The stages and what they promise each other: the one table that all else is taken from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CONFIGS = Path(__file__).parent.parent.parent / "configs"


@dataclass(frozen=True)
class EarlierRun:
    """The run folder of an earlier stage that a stage reads.

    Attributes:
        stage: name of the earlier stage, that of its run folder by default.
        setting: what names the folder in the configuration.
        target: the make target that fills it.
        own_only: whether nothing but such a run folder will do, complete and for the same part
            vocabulary; else models made elsewhere are taken, too.
    """

    stage: str
    setting: str
    target: str
    own_only: bool = True


@dataclass(frozen=True)
class Stage:
    """One stage: `python -m pipeline NAME SUBCOMMAND`.

    Attributes:
        name: of the command, of its run folder by default and of its folder in `configs/`.
        subcommand: Lightning's, that fills the run folder.
        target: the make target that fills the run folder.
        help: what it does, one line.
        folders: settings of the data module that name the user's folders.
        handed_over: what the data module hands the module (`data.X` to `model.init_args.X`).
        earlier: the run folder that it reads.
        bar: what the progress bar counts.
        trains: whether it keeps checkpoints, the best one and the last.
        repeatable: whether a complete run may be measured again, as a folder that was missing may
            be there now and what is done costs nothing.
        writer: callback that writes the stage's results; without it a run would end with none.
        needs_gradients: whether what it measures is attacked.
        inner: folders inside the run folder that are runs of their own.
    """

    name: str
    subcommand: Literal["fit", "predict", "test"]
    target: str
    help: str
    folders: tuple[str, ...] = ("imagenet", "pinpp")
    handed_over: tuple[str, ...] = ("object_parts",)
    earlier: EarlierRun | None = None
    bar: Literal["batches", "labels"] = "batches"
    trains: bool = False
    repeatable: bool = False
    writer: str = ""
    needs_gradients: bool = False
    inner: tuple[str, ...] = ()

    @property
    def evaluates(self) -> bool:
        """Whether all that it does is to measure a finished model."""
        return self.subcommand == "test"

    @property
    def configs(self) -> Path:
        """Folder of its configurations."""
        return CONFIGS / self.name


SEGMENTER = Stage(
    "stage1_segmenter",
    "fit",
    "make stage1-segmenter",
    "train the part segmenter",
    trains=True,
    writer="SegmenterMetrics",
)
LABELS = Stage(
    "stage2_pseudolabels",
    "predict",
    "make stage2-pseudolabels",
    "label the parts of all training images",
    earlier=EarlierRun(SEGMENTER.name, "model.init_args.segmenter", SEGMENTER.target),
    bar="labels",
    writer="PseudoLabelShards",
)
MPM = Stage(
    "stage3_mpm",
    "fit",
    "make stage3-mpm",
    "train the recogniser",
    earlier=EarlierRun(LABELS.name, "data.init_args.labels", LABELS.target),
    trains=True,
    writer="ExportRecogniser",
    needs_gradients=True,
)
GENERALISATION = Stage(
    "generalisation",
    "test",
    "make generalisation",
    "accuracy on corruptions, shifts and biases",
    earlier=EarlierRun(MPM.name, "model.init_args.model", MPM.target, own_only=False),
    repeatable=True,
    writer="GeneralisationRecords",
)
EVALUATION = Stage(
    "evaluate",
    "test",
    "make evaluate",
    "accuracy of a recogniser under attack",
    handed_over=("object_parts", "groups"),
    earlier=EarlierRun(MPM.name, "model.init_args.model", MPM.target, own_only=False),
    writer="RobustnessRecords",
    needs_gradients=True,
    inner=(GENERALISATION.name, "subsets", "certified"),
)
DETECTION = Stage(
    "downstream_detection",
    "fit",
    "make downstream-detection",
    "Faster R-CNN on the backbone of a recogniser",
    folders=("coco",),
    handed_over=("num_classes",),
    earlier=EarlierRun(MPM.name, "model.init_args.backbone", MPM.target, own_only=False),
    trains=True,
    writer="DetectionSummary",
    needs_gradients=True,
)
STAGES = {
    stage.name: stage for stage in (SEGMENTER, LABELS, MPM, EVALUATION, GENERALISATION, DETECTION)
}


def inner_runs() -> frozenset[str]:
    """Names of the folders that are runs of their own inside another run's folder."""
    return frozenset(name for stage in STAGES.values() for name in stage.inner)
