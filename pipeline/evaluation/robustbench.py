"""`robustbench.json`: the result of an evaluation as RobustBench describes a model.

The keys are those of the files `model_info/imagenet/Linf/*.json` of RobustBench's repository at
commit 78fcc9e (March 2025): the twelve of `KEYS` stand in each of its 30. Percentages there are
text with two digits after the point, `eps` is `4/255`, `additional_data` true or false and
`number_forward_passes` a number. Three more keys occur: `unreliable`, its maintainers' verdict, and
`external`, what others' attacks found, are not written here; `footnote` is where the images are
not RobustBench's 5,000. The one ball of ImageNet that RobustBench ranks is l_inf with 4/255; it
has no l_2 ranking of ImageNet.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datamodules.files.json_files import read_json, write_json
from datamodules.images.named_lists import name_of_list
from pipeline.evaluation.autoattack_rows import IMAGENET, AutoAttackRow

FILE = "robustbench.json"
KEYS = (
    "link",
    "name",
    "authors",
    "additional_data",
    "number_forward_passes",
    "dataset",
    "venue",
    "architecture",
    "eps",
    "clean_acc",
    "reported",
    "autoattack_acc",
)
FOOTNOTE = "footnote"
MEASURED = ("dataset", "eps", "clean_acc", "autoattack_acc")
NORM, EPS = "linf", "4/255"
IMAGES = "robustbench5000"
OWN_IMAGES = "Measured on "


def is_ranked(row: AutoAttackRow) -> bool:
    """Whether RobustBench ranks models of these classes under this attack."""
    attacked = row.autoattack is not None
    return attacked and (row.dataset, row.norm, row.eps) == (IMAGENET, NORM, EPS)


def describe(row: AutoAttackRow, keys: Iterable[str]) -> dict[str, Any]:
    """The description as far as it was measured; what only a person knows is empty text.

    Args:
        row: a result that `is_ranked`.
        keys: of the images, `class/file`.
    """
    assert row.autoattack is not None
    footnote = ""
    if name_of_list(keys) != IMAGES:
        footnote = f"{OWN_IMAGES}{row.images:,} val images that are not RobustBench's 5,000."
    found = {
        "number_forward_passes": 1 if row.architecture else "",
        "dataset": IMAGENET,
        "architecture": row.architecture,
        "eps": row.eps,
        "clean_acc": f"{row.clean:.2%}".rstrip("%"),
        "autoattack_acc": f"{row.autoattack:.2%}".rstrip("%"),
    }
    return {**{key: found.get(key, "") for key in KEYS}, FOOTNOTE: footnote}


def write_description(root: Path, described: dict[str, Any]) -> None:
    """Writes `robustbench.json`; of an earlier one what a person filled in is kept.

    Args:
        root: run folder.
        described: the content, see `describe`.

    Raises:
        UserError: if there is a file that is no JSON object.
    """
    path = root / FILE
    if path.is_file():
        before = read_json(path, "mend it or move it away, then run the same command again")
        own = {k: v for k, v in before.items() if k not in MEASURED and v != ""}
        if str(own.get(FOOTNOTE, "")).startswith(OWN_IMAGES):
            del own[FOOTNOTE]
        described = described | own
    write_json(path, described)
