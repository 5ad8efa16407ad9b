"""Groups of ImageNet classes: the 16 human categories and the super-categories of PartImageNet.

`object_groups.json` lists WNIDs by group. `human16`: the 207 WNIDs that Geirhos et al. (2018, 2021)
map onto 16 entry-level categories (bethgelab/model-vs-human, MIT). `pin11`: the 158 categories of
PartImageNet (He et al. 2022) by super-category, derived from their parts; PartImageNet's own
statistics print 23 cars, which would make 162.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from torch import Tensor

from datamodules.annotations.files import read_any_json
from datamodules.evaluation.evaluation_sets import group_tensor
from datamodules.files.errors import UserError

GROUPS = Path(__file__).with_name("object_groups.json")


@cache
def known_groups(name: str) -> dict[str, str]:
    """Group by WNID of `human16` or `pin11`."""
    groups = json.loads(GROUPS.read_text())[name]
    return {wnid: group for group, wnids in groups.items() for wnid in wnids}


def human_categories() -> tuple[str, ...]:
    """The 16 categories in alphabetic order; the position is the group number."""
    return tuple(sorted(set(known_groups("human16").values())))


def human_groups(objects: Sequence[str]) -> Tensor:
    """Position in `human_categories` of each object category, -1 for those without one.

    Args:
        objects: object names by class.

    Returns:
        int64 `(num_classes,)`.
    """
    names = human_categories()
    known = known_groups("human16")
    return group_tensor({wnid: names.index(group) for wnid, group in known.items()}, objects)


def human_problem(objects: Sequence[str]) -> str:
    """Why a model cannot answer with the 16 categories, one line; empty if it can."""
    found = set(human_groups(objects).tolist()) - {-1}
    absent = [name for i, name in enumerate(human_categories()) if i not in found]
    if not absent:
        return ""
    return f"the model has no class of {len(absent)} of the 16 categories ({absent[0]})"


def read_subsets(path: Path) -> dict[str, dict[str, str]]:
    """Reads subsets of classes: `{"name": {"WNID": "group"}}` or `{"name": ["WNID"]}`.

    Args:
        path: JSON file; of a list each category is its own group.

    Returns:
        Group by WNID, by name of the subset.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if it is not of that form.
    """
    content = read_any_json(path)
    subsets: dict[str, dict[str, str]] = {}
    for name, given in content.items() if isinstance(content, dict) else [("", None)]:
        groups = {str(wnid): wnid for wnid in given} if isinstance(given, list) else given
        if not name or not isinstance(groups, dict) or not groups:
            raise UserError(
                f'{path} is no file of subsets: it must be {{"name": {{"WNID": "group"}}}} or '
                '{"name": ["WNID"]}'
            )
        subsets[name] = {wnid: str(group) for wnid, group in groups.items()}
    return subsets
