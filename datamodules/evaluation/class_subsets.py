"""Val images of a subset of the classes, answered within the subset."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from datamodules.evaluation.evaluation_sets import (
    EvaluationSet,
    EvaluationSetting,
    EvaluationSource,
    MissingSet,
    group_tensor,
)
from datamodules.evaluation.object_groups import known_groups, read_subsets
from datamodules.evaluation.ood_sets import FolderSet
from datamodules.files.errors import UserError
from datamodules.images.imagenet_folder import require_class_folders

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
            MissingInputError: if a file is named that does not exist.
            UserError: if the file is malformed.
        """
        return [
            _subset(name, group_of, setting)
            for name, group_of in _all_subsets(self.subsets).items()
        ]


def find_subset(
    name: str, subsets: Path | None, objects: Sequence[str]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """The classes of one subset.

    Args:
        name: `pin11`, or a name in the file.
        subsets: as for `ClassSubsets`.
        objects: category names by class.

    Returns:
        Group number by name of those categories that are in the subset, and the groups' names.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if the subset is unknown, or the categories fall into fewer than 2 groups.
    """
    known = _all_subsets(subsets)
    if name not in known:
        raise UserError(
            f"there is no subset {name}, only {', '.join(known)}: set `subsets` to a JSON file "
            f'{{"{name}": {{"WNID": "group"}}}}'
        )
    try:
        return _numbered(known[name], objects)
    except ValueError as error:
        raise UserError(f"subset {name}: {error}") from None


def _all_subsets(subsets: Path | None) -> dict[str, dict[str, str]]:
    given = {} if subsets is None else read_subsets(Path(subsets))
    return {"pin125": {}, "pin11": known_groups("pin11")} | given


def _numbered(
    group_of: Mapping[str, str], objects: Sequence[str]
) -> tuple[dict[str, int], tuple[str, ...]]:
    if not group_of:
        raise UserError(UNKNOWN_125)
    names = tuple(sorted({group_of[wnid] for wnid in objects if wnid in group_of}))
    if len(names) < 2:
        wanted = len(set(group_of.values()))
        raise UserError(f"the model's classes fall into {len(names)} of its {wanted} groups")
    return {wnid: names.index(group_of[wnid]) for wnid in objects if wnid in group_of}, names


def _subset(name: str, group_of: Mapping[str, str], setting: EvaluationSetting) -> EvaluationSet:
    try:
        numbers, names = _numbered(group_of, setting.objects)
    except ValueError as error:
        return MissingSet(name, "subsets", str(error))
    require_class_folders(setting.val)
    chosen = FolderSet.of_classes(
        name, "subsets", setting.val, setting, labels=numbers, only=setting.listed
    )
    chosen.groups = group_tensor(numbers, setting.objects)
    chosen.group_names = names
    return chosen
