"""ImageNet laid out as folders: `train/<object>/<file>` and `val/<object>/<file>`."""

from pathlib import Path

from PIL import Image

from datamodules.files.errors import MissingInputError, UserError

IMAGE_SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})


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
    objects = tuple(sorted(path.name for path in train.iterdir() if path.is_dir()))
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
        UserError: if it holds a category that `train/` does not.
    """
    if not split.is_dir():
        raise MissingInputError(
            f"{split} is not a folder: set IMAGENET to the folder that holds train/ and val/"
        )
    label_of = {name: label for label, name in enumerate(list_objects(split.parent))}
    images = []
    for folder in sorted(path for path in split.iterdir() if path.is_dir()):
        if folder.name not in label_of:
            raise UserError(f"{folder} is a category without a folder in {split.parent / 'train'}")
        images += [
            (f"{folder.name}/{path.name}", label_of[folder.name])
            for path in folder.iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES
        ]
    if not images:
        raise MissingInputError(f"{split} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return sorted(images)


def read_image(path: Path) -> Image.Image:
    """Decodes an image file to RGB.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if the file is not a readable image; the message names it.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise MissingInputError(f"image {path} does not exist") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path} cannot be decoded ({error}): replace it or take it out of the folder"
        ) from None
