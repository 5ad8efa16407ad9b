"""All that the report shows of a runs folder, read at once."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.files.errors import MissingInputError
from modules.weights.named_models import has_weights
from pipeline.evaluation.summaries import AlignmentRow, DetectionResults
from pipeline.few_shot.comparison import AGAINST
from pipeline.few_shot.summary import FewShotComparison, FewShotSummary
from pipeline.report.reading.evaluations import (
    Evaluation,
    evaluation_folders,
    read_alignment,
    read_evaluation,
)
from pipeline.report.reading.facts import LabelFacts, StageFacts, label_facts, stage_facts
from pipeline.runs.manifest import Manifest
from pipeline.runs.metrics import FILE, Metrics
from pipeline.runs.stages import LABELS, MPM, SEGMENTER

SCORES = "segmenter_scores"  # folder of what make score-segmenter writes


@dataclass(frozen=True)
class Runs:
    """What a runs folder holds.

    Attributes:
        folder: The runs folder.
        stages: Run folders of the stages that ran, in the order of the flow.
        facts: What ran, of the stages and then of the evaluations.
        evaluations: Evaluated models.
        alignment: Models beside people, by name.
        detectors: Results of downstream detectors by name of their run folder.
        few_shot: Few-shot accuracies by name of their run folder.
        few_shot_differences: Models that were compared on the same episodes.
        scored_segmenters: Figures of any segmenter's results by name of their folder.
        labels: Counts of the pseudo labels, None without any.
        missing: Stages that have not run, one line each.
        not_evaluated: Models that were not evaluated, one line each.
        segmenter_data: Arguments of the data that the segmenter was trained with.
        score_threshold: Least score of the pseudo parts that the recogniser learnt from.
    """

    folder: Path
    stages: list[Path]
    facts: list[StageFacts]
    evaluations: list[Evaluation]
    alignment: dict[str, AlignmentRow]
    detectors: dict[str, DetectionResults]
    few_shot: dict[str, FewShotSummary]
    few_shot_differences: list[FewShotComparison]
    scored_segmenters: dict[str, dict[str, float]]
    labels: LabelFacts | None
    missing: list[str]
    not_evaluated: list[str]
    segmenter_data: Mapping[str, Any]
    score_threshold: float

    @property
    def segmenter(self) -> Path:
        """Run folder of the segmenter."""
        return self.folder / SEGMENTER.name

    @property
    def pseudo_labels(self) -> Path:
        """Run folder of the pseudo labels."""
        return self.folder / LABELS.name

    @property
    def segmenter_metrics(self) -> dict[str, float]:
        """Validation metrics of the segmenter; empty where unknown."""
        return next((one.metrics for one in self.facts if one.name == SEGMENTER.name), {})

    @property
    def all_segmenter_metrics(self) -> dict[str, dict[str, float]]:
        """The same of every run of stage 1 that was measured, by its folder."""
        measured = {one.name: one.metrics for one in self.facts if one.metrics}
        return {name: found for name, found in measured.items() if name.startswith("stage1_")}

    @property
    def measured_on_val(self) -> bool:
        """Whether the segmenter was measured on val images instead of the held-out tenth."""
        return bool(self.segmenter_data.get("pinpp_val"))


def read_runs(folder: Path, models: Sequence[str] = ()) -> Runs:
    """Reads a runs folder.

    Args:
        folder: Folder that holds the stages' run folders.
        models: Names of the models to read, default all.

    Raises:
        MissingInputError: If the folder is missing.
        UserError: If a file of a run is damaged.
    """
    if not folder.is_dir():
        raise MissingInputError(
            f"{folder} is not a folder: run make demo, or set RUNS to the folder of your runs"
        )
    stages = _stages(folder, models)
    folders, not_evaluated = _evaluated(folder, models)
    evaluations = [read_evaluation(path) for path in folders]
    ran = [run.name for run in stages]
    missing = [
        f"{stage.name}: not run, {stage.target}"
        for stage in (SEGMENTER, LABELS)
        if stage.name not in ran
    ]
    if not any(name.startswith("stage3_") for name in ran):
        missing.append(f"stage3: not run, {MPM.target}")
    thresholds = (
        data_arguments(run).get("score_threshold") for run in sorted(folder.glob("stage3_*"))
    )
    summaries = sorted(folder.glob(f"*/test/{DetectionResults.file}"))
    return Runs(
        folder,
        stages,
        [stage_facts(run, run.relative_to(folder).as_posix()) for run in [*stages, *folders]],
        evaluations,
        read_alignment(folder, evaluations),
        {path.parent.parent.name: DetectionResults.read(path.parent) for path in summaries},
        *_few_shot(folder, models),
        _scored(folder / SCORES),
        label_facts(folder / LABELS.name),
        missing,
        not_evaluated,
        data_arguments(folder / SEGMENTER.name),
        float(next((value for value in thresholds if value is not None), 0.0)),
    )


def _scored(folder: Path) -> dict[str, dict[str, float]]:
    """What `make score-segmenter` measured, by name."""
    found = {
        file.parent.name: Metrics.find(file.parent) for file in sorted(folder.glob(f"*/{FILE}"))
    }
    return {name: one.values for name, one in found.items() if one is not None}


def data_arguments(run: Path) -> Mapping[str, Any]:
    """Arguments of the data that a stage was run with; empty where unknown."""
    manifest = Manifest.find(run)
    return manifest.data_arguments if manifest else {}


def _few_shot(
    runs: Path, models: Sequence[str]
) -> tuple[dict[str, FewShotSummary], list[FewShotComparison]]:
    """Few-shot accuracies and differences, of the named models or all of them."""
    summaries = {
        path.parent.name: FewShotSummary.read(path.parent)
        for path in sorted(runs.glob(f"few_shot/*/{FewShotSummary.file}"))
    }
    compared = sorted(runs.glob(f"few_shot/*/{AGAINST}/*/{FewShotComparison.file}"))
    differences = [FewShotComparison.read(path.parent) for path in compared]
    if not models:
        return summaries, differences
    wanted = {name: one for name, one in summaries.items() if name in models}
    return wanted, [one for one in differences if {one.model, one.against} <= set(models)]


def _stages(runs: Path, models: Sequence[str]) -> list[Path]:
    """Run folders in the order of the flow; of stage 3 the named models, or all of them."""
    return [
        path
        for path in sorted(runs.glob("stage[123]_*"))
        if path.is_dir()
        and (not models or not path.name.startswith("stage3_") or path.name in models)
    ]


def _evaluated(runs: Path, models: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Evaluated models' folders in the order asked for, and what is missing in words."""
    folders = {path.name: path for path in evaluation_folders(runs)}
    if not models:
        missing = [] if folders else ["no model evaluated: not run, make evaluate"]
        return list(folders.values()), missing
    wanted = dict.fromkeys(models)
    missing = [
        f"{model}: not run, {evaluate_command(runs, model)}"
        for model in wanted
        if model not in folders
    ]
    return [folders[model] for model in wanted if model in folders], missing


def evaluate_command(runs: Path, model: str) -> str:
    """What evaluates a model by its name: a run folder, unless timm has weights of that name."""
    path = model if has_weights(model) else shlex.quote(str(runs / model))
    return f"make evaluate MODEL={path}"
