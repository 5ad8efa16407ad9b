"""Sorts ImageNet's val, unpacked as one folder of 50,000 files, into class folders."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

from datamodules.files.errors import UserError, os_errors
from datamodules.files.names import printable
from datamodules.images.image_files import is_image
from datamodules.images.imagenet_folder import class_folders, list_objects
from datamodules.images.val_classes import read_devkit, read_val_list


@dataclass(frozen=True)
class Moves:
    """What there is to do.

    Attributes:
        pairs: where each image that is not sorted yet is, and where it belongs.
        sorted: number of images that are in their class folder already.
    """

    pairs: tuple[tuple[Path, Path], ...]
    sorted: int


def plan_moves(imagenet: Path, classes: Mapping[str, str]) -> Moves:
    """Checks that all will end in its place, before anything is moved.

    Args:
        imagenet: folder with `train/`, whose folders are the classes, and `val/`.
        classes: class by file name, of all images of val.

    Raises:
        MissingInputError: if a folder is missing.
        UserError: if images are missing, not listed, in the folder of another class, or there
            twice, or a class is none of `train/`; nothing has been moved.
    """
    val = imagenet / "val"
    folders = class_folders(val)
    unknown = sorted(set(classes.values()) - set(list_objects(imagenet)))
    _refuse(unknown, f"classes of the list have no folder in {imagenet / 'train'}", "complete it")
    loose = {name for name in os.listdir(val) if is_image(name)}
    placed = [
        (name, folder) for folder in folders for name in os.listdir(val / folder) if is_image(name)
    ]
    names = {name for name, _ in placed}
    for wrong, what, mend in (
        (
            [f"{folder}/{name}" for name, folder in placed if classes.get(name, folder) != folder],
            "images are in the folder of another class than the list says",
            "move them, or take the list of these images",
        ),
        (loose & names, "images are there twice, sorted and not", "remove one of each"),
        (
            (loose | names) - classes.keys(),
            "images are not in the list",
            "take the list of these images, or move them elsewhere",
        ),
        (classes.keys() - loose - names, "images of the list are missing", "unpack val again"),
    ):
        _refuse(sorted(wrong), f"{what} ({printable(val)})", mend)
    pairs = tuple((val / name, val / classes[name] / name) for name in sorted(loose))
    return Moves(pairs, len(placed))


def move(pairs: tuple[tuple[Path, Path], ...]) -> None:
    """Renames files into folders, which are made; nothing is overwritten.

    Raises:
        FileExistsError: if something has appeared in the place of one since.
    """
    for source, target in track(pairs, "Sorting", console=Console(stderr=True)):
        target.parent.mkdir(exist_ok=True)
        if os.path.lexists(target):  # a rename would replace it
            raise FileExistsError(f"{target} exists: nothing is overwritten")
        os.rename(source, target)


@os_errors()
def main(imagenet: Path, devkit: Path | None = None, list: Path | None = None) -> None:
    """Sorts ImageNet's val, unpacked as one folder of 50,000 files, into class folders.

    All is checked before the first file is moved; started again after a stop, it goes on.

    Args:
        imagenet: folder with train/ and val/.
        devkit: ILSVRC2012_devkit_t12, its folder or archive.
        list: file of `ILSVRC2012_val_00000001.JPEG n01751748` lines, or LOC_val_solution.csv.

    Raises:
        MissingInputError: if a folder or file is missing.
        UserError: if not exactly one source of the classes is given, or it does not fit val.
    """
    if devkit is not None and list is None:
        classes = read_devkit(devkit)
    elif list is not None and devkit is None:
        classes = read_val_list(list)
    else:
        raise UserError(
            "set either DEVKIT= (--devkit, the development kit of ILSVRC 2012) or LIST= (--list, "
            "lines `file class`): one of them says which class an image is of"
        )
    moves = plan_moves(imagenet, classes)
    move(moves.pairs)
    print(
        f"{imagenet / 'val'}: {len(moves.pairs):,} images moved, {moves.sorted:,} were in their "
        f"class folder already; {len(set(classes.values())):,} classes"
    )


def _refuse(wrong: "list[str]", what: str, mend: str) -> None:
    if wrong:
        raise UserError(
            f"{len(wrong):,} {what}, the first is {printable(wrong[0])}: {mend}; nothing was moved"
        )
