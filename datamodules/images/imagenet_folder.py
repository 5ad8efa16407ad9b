"""ImageNet laid out as folders: `train/<object>/<file>` and `val/<object>/<file>`."""

from collections.abc import Sequence
from pathlib import Path

from datamodules.files.errors import MissingInputError, UserError
from datamodules.files.names import printable, require_utf8
from datamodules.images.image_files import IMAGE_SUFFIXES, is_image, visible_folders


def class_folders(split: Path) -> list[str]:
    """Sorted names of the class folders of a split, without a look at what is in them.

    Raises:
        MissingInputError: if there is no such folder.
    """
    if not split.is_dir():
        raise MissingInputError(
            f"{printable(split)} is not a folder: set IMAGENET to the folder that holds train/ "
            "and val/"
        )
    return [folder.name for folder in visible_folders(split)]


def list_objects(imagenet: Path) -> tuple[str, ...]:
    """Object categories of a data set: the sorted folder names below `train/`.

    Raises:
        MissingInputError: if there is no `train/` folder or it holds no category.
        UserError: if the name of one is not UTF-8 text.
    """
    train = imagenet / "train"
    objects = class_folders(train)
    if not objects:
        raise MissingInputError(f"{train} holds no category folders, such as train/n01440764/")
    require_utf8(train, objects)
    return tuple(objects)


def unsorted_problem(split: Path) -> str:
    """Why images that lie in the split folder itself would be lost; empty if there are none.

    ImageNet's val is unpacked so: 50,000 files without class folders.
    """
    found = [path.name for path in split.iterdir() if is_image(path.name)]
    if not found:
        return ""
    mend = (
        f"make sort-val IMAGENET={printable(split.parent)} DEVKIT=... sorts them"
        if split.name == "val"
        else "move them into the folders of their classes, or out of here"
    )
    return f"{printable(split)} holds {len(found):,} images outside of class folders: {mend}"


def require_class_folders(split: Path) -> None:
    """Refuses a split with images outside of class folders, which no class would have.

    Raises:
        UserError: with what mends it.
    """
    if split.is_dir() and (problem := unsorted_problem(split)):
        raise UserError(problem)


def list_images(split: Path, classes: Sequence[str] | None = None) -> list[tuple[str, int]]:
    """All images of a split folder.

    Labels are positions in the sorted folder names below `train/`, so that `val/` with fewer
    categories keeps the numbers of training.

    Args:
        split: `imagenet/train` or `imagenet/val`.
        classes: names of the classes by label where they are known; None for those of `train/`.

    Returns:
        Sorted pairs of key (`object/file.JPEG`) and label.

    Raises:
        MissingInputError: if the folder is missing or holds no images.
        UserError: if it holds images outside of class folders, a category that `train/` does
            not, or names that are not UTF-8 text, or a category of `train/` holds no images.
    """
    folders = class_folders(split)
    require_class_folders(split)
    label_of = {name: label for label, name in enumerate(classes or list_objects(split.parent))}
    images = []
    for folder in (split / name for name in folders):
        if folder.name not in label_of:
            raise UserError(
                f"{printable(folder)} is a category without a folder in {split.parent / 'train'}"
            )
        names = [path.name for path in folder.iterdir() if is_image(path.name)]
        if not names and split.name == "train":
            raise UserError(
                f"{folder} holds no images, yet would be a class of its own: fill or remove it"
            )
        require_utf8(folder, names)
        images += [(f"{folder.name}/{name}", label_of[folder.name]) for name in names]
    if not images:
        raise MissingInputError(f"{split} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return sorted(images)
