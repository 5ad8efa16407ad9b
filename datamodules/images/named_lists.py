"""Lists of ImageNet val images that others published, by name; their files are not part of this."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from datamodules.files.errors import MissingInputError, UserError


@dataclass(frozen=True)
class NamedList:
    """A published list.

    Attributes:
        files: names under which it is published.
        origin: where it is to be had.
        sha256: of the sorted keys, see `keys_hash`.
    """

    files: tuple[str, ...]
    origin: str
    sha256: str


_ROBUSTBENCH = "2f1fd0aa050d2393d0d1ff5aa3da5cf25831254f1cb59266e3162a1e2c61adc8"
_AUTHORS = "github.com/LixiaoTHU/PartImageNetPP"
NAMED = {
    "robustbench5000": NamedList(
        ("imagenet_test_image_ids.txt", "imagenet_test_1k_aa.txt"),
        "robustbench/helper_files/ of github.com/RobustBench/robustbench",
        _ROBUSTBENCH,
    ),
    # the same images as RobustBench's
    "authors_aa": NamedList(("imagenet_test_1k_aa.txt",), _AUTHORS, _ROBUSTBENCH),
    "authors1w": NamedList(
        ("imagenet_test_1k_1w.txt",),
        _AUTHORS,
        "7b70ab45ded36d10d3ce3b8d7e656a83cd95cd2a9ef99619f4f5649e1ff1f786",
    ),
}
"""RobustBench's 5,000 images of 997 classes, and the lists of the authors of PartImageNet++."""


def find_list(given: Path, imagenet: Path) -> Path:
    """The file of a list that is given by its path or by a name of `NAMED`.

    The file of a name is sought in the ImageNet folder, and must be the one that was published.

    Args:
        given: path or name; an existing file goes before a name.
        imagenet: folder to look in.

    Raises:
        MissingInputError: if the file of a name is not there.
        UserError: if it lists other images than the published one.
    """
    if given.exists() or str(given) not in NAMED:
        return given
    known = NAMED[str(given)]
    found = next((imagenet / name for name in known.files if (imagenet / name).is_file()), None)
    if found is None:
        raise MissingInputError(
            f"list {given} is not part of this project: put {known.files[0]} (from {known.origin}) "
            f"into {imagenet}, or give its path, LIST=PATH"
        )
    lines = found.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    if keys_hash(line.split()[0] for line in lines if line.strip()) != known.sha256:
        raise UserError(
            f"{found} lists other images than {given}: fetch it anew from {known.origin}, or give "
            "it as your own list by its path"
        )
    return found


def name_of_list(keys: Iterable[str]) -> str:
    """Name of the published list of exactly these images; empty if there is none."""
    digest = keys_hash(keys)
    return next((name for name, known in NAMED.items() if known.sha256 == digest), "")


def keys_hash(keys: Iterable[str]) -> str:
    """SHA-256, in hexadecimal, of keys (`class/file`) whatever their order."""
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()
