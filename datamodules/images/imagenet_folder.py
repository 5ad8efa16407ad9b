"""ImageNet laid out as folders: `train/<object>/<file>` and `val/<object>/<file>`."""

from pathlib import Path

from datamodules.files.errors import MissingInputError, UserError
from datamodules.images.image_files import IMAGE_SUFFIXES, is_image, visible_folders


def list_objects(imagenet: Path) -> tuple[str, ...]:
    """Object categories of a data set: the sorted folder names below `train/`.

    Raises:
        MissingInputError: if there is no `train/` folder or it holds no category.
    """
    train = imagenet / "train"
    if not train.is_dir():
        raise MissingInputError(
            f"{train} is not a folder: set IMAGENET to the folder that holds train/ and val/"
        )
    objects = tuple(folder.name for folder in visible_folders(train))
    if not objects:
        raise MissingInputError(f"{train} holds no category folders, such as train/n01440764/")
    return objects


def list_images(split: Path) -> list[tuple[str, int]]:
    """All images of a split folder.

    Labels are positions in the sorted folder names below `train/`, so that `val/` with fewer
    categories keeps the numbers of training.

    Args:
        split: `imagenet/train` or `imagenet/val`.

    Returns:
        Sorted pairs of key (`object/file.JPEG`) and label.

    Raises:
        MissingInputError: if the folder is missing or holds no images.
        UserError: if it holds a category that `train/` does not, or a category of `train/` holds
            no images.
    """
    if not split.is_dir():
        raise MissingInputError(
            f"{split} is not a folder: set IMAGENET to the folder that holds train/ and val/"
        )
    label_of = {name: label for label, name in enumerate(list_objects(split.parent))}
    images = []
    for folder in visible_folders(split):
        if folder.name not in label_of:
            raise UserError(f"{folder} is a category without a folder in {split.parent / 'train'}")
        names = [path.name for path in folder.iterdir() if is_image(path.name)]
        if not names and split.name == "train":
            raise UserError(
                f"{folder} holds no images, yet would be a class of its own: fill or remove it"
            )
        images += [(f"{folder.name}/{name}", label_of[folder.name]) for name in names]
    if not images:
        raise MissingInputError(f"{split} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return sorted(images)
