"""Checks the images of `imagenet/train` and `imagenet/val`, annotated or not."""

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from datamodules.annotations.problems import Problem
from datamodules.files.errors import UserError
from datamodules.files.names import is_utf8, printable
from datamodules.images.image_files import is_image, opened_image, read_image
from datamodules.images.imagenet_folder import class_folders, unsorted_problem
from datamodules.images.orientation import UPRIGHT, exif_orientation


@dataclass(frozen=True)
class SplitListing:
    """What a split folder holds, by names alone.

    Attributes:
        split: the folder.
        classes: number of its class folders.
        keys: its images, `object/file.JPEG`, in no order.
        left_out: number of other entries of class folders: hidden ones, and what is no image.
        problems: what is wrong with folders and names.
    """

    split: Path
    classes: int
    keys: tuple[str, ...]
    left_out: int
    problems: tuple[Problem, ...]


def list_split(split: Path, known: Collection[str] | None = None) -> SplitListing:
    """Lists a split folder with all that its readers would refuse.

    Args:
        split: `imagenet/train` or `imagenet/val`.
        known: classes that there are; None takes those of the split itself.

    Raises:
        MissingInputError: if there is no such folder.
    """
    names = class_folders(split)
    keys, left_out, problems = [], 0, []
    if unsorted := unsorted_problem(split):
        message = unsorted.removeprefix(f"{printable(split)} ")
        problems.append(_problem("images_without_class", split, message))
    for name in names:
        folder = split / name
        entries = os.listdir(folder)
        images = [entry for entry in entries if is_image(entry)]
        left_out += len(entries) - len(images)
        keys += [f"{name}/{image}" for image in images]
        wrong = [] if is_utf8(name) else [folder]
        wrong += [folder / image for image in images if not is_utf8(image)]
        problems += [
            _problem("name_not_utf8", path, "its name is not UTF-8 text: rename it")
            for path in wrong
        ]
        if known is not None and name not in known:
            message = f"is a class without a folder in {printable(split.parent / 'train')}"
            problems.append(_problem("unknown_class", folder, message))
        elif not images:
            kind = "class_without_images" if known is None else "val_class_without_images"
            problems.append(_problem(kind, folder, "holds no images: fill or remove it"))
    return SplitListing(split, len(names), tuple(keys), left_out, tuple(problems))


@dataclass(frozen=True)
class DecodedImages:
    """What came of decoding images.

    Attributes:
        damaged: key and problem of each that cannot be decoded.
        turned: number of those with an EXIF orientation, which is not applied.
    """

    damaged: tuple[tuple[str, Problem], ...]
    turned: int


def decode_images(task: tuple[Path, tuple[str, ...]]) -> DecodedImages:
    """Decodes images whole, as training would.

    Args:
        task: split folder, and keys of the images.
    """
    split, keys = task
    damaged, turned = [], 0
    for key in keys:
        try:
            read_image(split / key)
            with opened_image(split / key) as image:
                turned += exif_orientation(image) != UPRIGHT
        except UserError as error:
            message = str(error).removeprefix(f"{printable(split / key)} ")
            damaged.append((key, _problem("corrupt_image", split / key, message)))
    return DecodedImages(tuple(damaged), turned)


def by_object(keys: Iterable[str]) -> dict[str, frozenset[str]]:
    """File names of keys, by the folder that they are in."""
    found: dict[str, set[str]] = {}
    for key in keys:
        folder, _, name = key.partition("/")
        found.setdefault(folder, set()).add(name)
    return {folder: frozenset(names) for folder, names in found.items()}


def _problem(kind: str, path: Path, message: str) -> Problem:
    return Problem(kind, printable(path), "", message)
