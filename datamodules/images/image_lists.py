"""Lists of images for an evaluation: balanced orders, files of `path label` lines."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from datamodules.files.errors import MissingInputError, UserError
from datamodules.images.image_files import is_image


def balanced_order(images: Sequence[tuple[str, int]], seed: int) -> list[tuple[str, int]]:
    """Orders images so that the first n are balanced over classes, for every n.

    Classes take turns in a seeded order, and within a class images stand in the order of a
    seeded hash of their keys. Classes that run out are left out of the later turns.

    Args:
        images: pairs of key and label.
        seed: seed of both orders.
    """

    def place(name: str) -> bytes:
        return hashlib.sha256(f"{seed}/{name}".encode()).digest()

    by_label: dict[int, list[str]] = {}
    for key, label in images:
        by_label.setdefault(label, []).append(key)
    queue = sorted(
        (turn, place(f"class {label}"), key, label)
        for label, keys in by_label.items()
        for turn, key in enumerate(sorted(keys, key=place))
    )
    return [(key, label) for _, _, key, label in queue]


def sizes_hash(folder: Path, keys: Iterable[str]) -> str:
    """SHA-256 of keys and sizes in bytes: the same for a moved copy, another for other files.

    Pixels are not read: for all of ImageNet's val images that would take minutes at every start.

    Args:
        folder: folder that keys are relative to.
        keys: of the images, in their order.

    Raises:
        MissingInputError: if one of them does not exist.
    """
    digest = hashlib.sha256()
    for key in keys:
        path = os.path.join(folder, key)
        try:
            digest.update(f"{key} {os.stat(path).st_size}\n".encode())
        except FileNotFoundError:
            raise MissingInputError(f"image {path} does not exist") from None
    return digest.hexdigest()


def read_image_list(path: Path, objects: Sequence[str] | None) -> list[tuple[str, int]]:
    """Reads a list of `path label` lines, as the authors of PartImageNet++ publish theirs.

    Where classes are known, lines without a label are those of RobustBench's list: the folder of
    the image is its class.

    Args:
        path: the file; paths in it are relative to the split folder, labels count from 0.
        objects: names of the classes; a path that begins with one must have its label. None where
            they are not known: every label is taken as it is.

    Returns:
        Pairs of key and label in the order of the file.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if a line is malformed, repeated, or its label is none of the data's.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise MissingInputError(f"image list {path} does not exist") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is no list of `path label` lines: it is not text") from None
    numbers = {name: number for number, name in enumerate(objects or ())}
    images: dict[str, int] = {}
    for row, line in enumerate(lines, 1):
        if not line.strip():
            continue
        key, _, label = line.strip().rpartition(" ")
        key, folder = key.strip(), line.strip().split("/")[0]
        if not label.isdecimal() and folder in numbers and is_image(line.strip()):
            key, label = line.strip(), str(numbers[folder])
        if not key or not label.isdecimal():
            raise UserError(f"{path}:{row}: '{line[:80]}' is not `path label`")
        if objects is not None and not int(label) < len(objects):
            raise UserError(f"{path}:{row}: label {label} of {key}, the data has {len(objects)}")
        wanted = numbers.get(key.split("/")[0], int(label))
        if wanted != int(label):
            raise UserError(f"{path}:{row}: label {label} of {key}, in the data it is {wanted}")
        if key in images:
            raise UserError(f"{path}:{row}: {key} is listed twice")
        images[key] = int(label)
    if not images:
        raise UserError(f"{path} lists no images")
    return list(images.items())


def format_image_list(images: Sequence[tuple[str, int]]) -> str:
    """The lines that `read_image_list` reads."""
    return "".join(f"{key} {label}\n" for key, label in images)
