"""Stimuli that people were shown: 17 experiments with distorted images of 16 categories."""

from dataclasses import replace
from pathlib import Path

from datamodules.evaluation.evaluation_sets import (
    EvaluationSet,
    EvaluationSetting,
    EvaluationSource,
    MissingSet,
)
from datamodules.evaluation.object_groups import human_categories, human_groups, human_problem
from datamodules.evaluation.ood_sets import FolderSet, folder_problem
from datamodules.files.errors import UserError
from datamodules.images.image_files import images_below

EXPERIMENTS = (
    "colour",
    "contrast",
    "high-pass",
    "low-pass",
    "phase-scrambling",
    "power-equalisation",
    "false-colour",
    "rotation",
    "eidolonI",
    "eidolonII",
    "eidolonIII",
    "uniform-noise",
    "cue-conflict",
    "edge",
    "silhouette",
    "sketch",
    "stylized",
)
"""The 17 experiments of Geirhos et al. 2021; the first 12 have conditions of rising strength."""


class DistortedImages(EvaluationSource):
    """The 17 experiments of Geirhos et al. 2021 ("DIN", 18,080 images), 16 categories.

    Answers are the categories with the largest mean soft-max probability over their classes, as
    Geirhos et al. 2021 define them. Stimuli have the size of the network and are not cropped. All
    images count here, those of the control conditions too; the command `human_alignment`
    leaves out the conditions that Geirhos et al. leave out.

    Args:
        folder: folder with one folder for each experiment, as released:
            `colour/dnn/session-1/0001_cl_dnn_cr_oven_40_n04111531_14126.png` (condition and
            category are the 4th and 5th word) or `edge/oven/oven10.png` (the folder is the
            category); None if there is none.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def sets(self, setting: EvaluationSetting) -> list[EvaluationSet]:
        """`din/<experiment>` for all 17; one missing `din` without a folder.

        Raises:
            UserError: if the name of a file holds no category.
        """
        problem = folder_problem(self.folder, "the stimuli of the 17 experiments")
        problem = problem or human_problem(setting.objects)
        if problem or self.folder is None:
            return [MissingSet("din", "ood", problem)]
        return [self._experiment(Path(self.folder) / name, setting) for name in EXPERIMENTS]

    def _experiment(self, folder: Path, setting: EvaluationSetting) -> EvaluationSet:
        name = f"din/{folder.name}"
        if problem := folder_problem(folder, "stimuli of one experiment"):
            return MissingSet(name, "ood", problem)
        root = folder / "dnn" if (folder / "dnn").is_dir() else folder
        items = [(str(file.relative_to(folder)), _human_label(file)) for file in images_below(root)]
        uncropped = replace(setting, resize=setting.image_size)
        chosen = FolderSet(name, "ood", folder, items, uncropped)
        chosen.missing = "" if items else f"{folder} holds no images"
        chosen.groups = human_groups(setting.objects)
        chosen.group_names = human_categories()
        chosen.aggregate = "mean"
        return chosen


def _human_label(file: Path) -> int:
    names = human_categories()
    words = file.name.split("_")
    for word in (words[4] if len(words) > 5 else "", file.parent.name):
        if word in names:
            return names.index(word)
    raise UserError(
        f"{file}: neither the 5th word of its name nor its folder is one of the 16 categories "
        f"({', '.join(names)})"
    )
