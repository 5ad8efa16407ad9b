"""Val images of a subset of the classes, answered within the subset."""

from collections.abc import Mapping
from pathlib import Path

from datamodules.evaluation_sets import (
    EvaluationSet,
    EvaluationSetting,
    EvaluationSource,
    MissingSet,
    group_tensor,
)
from datamodules.object_groups import known_groups, read_subsets
from datamodules.ood_sets import FolderSet

UNKNOWN_125 = (
    "the 125 categories of Li et al. (ROCK, TPAMI 2023) are printed nowhere: set `subsets` to a "
    'file {"pin125": [their WNIDs]}'
)


class ClassSubsets(EvaluationSource):
    """Subsets with the logits of all other classes masked out (Tables S2 and S3).

    Gives `pin11`, the 158 categories of PartImageNet answered by its 11 super-categories, and
    `pin125`, which needs a file: ROCK's released code keeps 8 super-categories (130 of the 158
    categories), and which 5 more are left out is not said there.

    Args:
        subsets: JSON file of further subsets by name: `{"name": {"WNID": "group"}}`, or
            `{"name": ["WNID"]}` where each category is its own group.
    """

    def __init__(self, subsets: Path | None = None) -> None:
        self.subsets = subsets

    def sets(self, setting: EvaluationSetting) -> list[EvaluationSet]:
        """`pin125`, `pin11`, then the others of the file.

        Raises:
            FileNotFoundError: if a file is named that does not exist.
            ValueError: if the file is malformed.
        """
        given = {} if self.subsets is None else read_subsets(Path(self.subsets))
        subsets = {"pin125": {}, "pin11": known_groups("pin11")} | given
        return [
            _subset(name, group_of, setting)
            if group_of
            else MissingSet(name, "subsets", UNKNOWN_125)
            for name, group_of in subsets.items()
        ]


def _subset(name: str, group_of: Mapping[str, str], setting: EvaluationSetting) -> EvaluationSet:
    names = tuple(sorted({group_of[wnid] for wnid in setting.objects if wnid in group_of}))
    if len(names) < 2:
        wanted = len(set(group_of.values()))
        reason = f"the model's classes fall into {len(names)} of its {wanted} groups"
        return MissingSet(name, "subsets", reason)
    numbers = {wnid: names.index(group_of[wnid]) for wnid in setting.objects if wnid in group_of}
    val = setting.imagenet / "val"
    chosen = FolderSet.of_classes(name, "subsets", val, setting, labels=numbers)
    chosen.groups = group_tensor(numbers, setting.objects)
    chosen.group_names = names
    return chosen
