"""Boxes in the annotation format of COCO, read without trust in what the file holds."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from datamodules.files.errors import MissingInputError, UserError
from datamodules.files.integers import IdReader, whole_number
from datamodules.files.json_files import read_json
from datamodules.masks.segmentations import shown

LISTS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class CocoBoxes:
    """Annotations of a split as arrays, which worker processes share without copying.

    Attributes:
        files: path of each image below the folder of the data set.
        sizes: height and width of each image in pixels, `(images, 2)`.
        ends: boxes of image i are `ends[i]` to `ends[i + 1]`, `(images + 1,)`.
        boxes: x1, y1, x2, y2 in pixels, inside the image, `(N, 4)`; none is empty.
        labels: classes 1 to K `(N,)`.
        crowd: whether a box stands for a crowd, which nobody is to find, `(N,)`.
    """

    files: tuple[str, ...]
    sizes: np.ndarray
    ends: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray

    @classmethod
    def read(cls, coco: Path, split: str, names: Sequence[str]) -> Self:
        """Reads a split; boxes are clipped, and those of less than a pixel left out.

        Ids hold within the file alone, so categories are known by their names.

        Args:
            coco: folder of the data set.
            split: name of the split, such as `val2017`.
            names: category of each class, from class 1 on.

        Raises:
            MissingInputError: if the annotations or images are missing.
            UserError: if the file is damaged, or an entry is malformed, repeated or names an
                unknown category or image; the message names file and id.
        """
        path = annotation_file(coco, split)
        content = read_annotations(path)
        ids = IdReader()
        listed = _categories(content, path, ids)
        if unlike := set(listed.values()) ^ set(names):
            raise UserError(
                f"{path} and the val split differ in the categories "
                f"{', '.join(sorted(unlike))}: both need the same names"
            )
        label_of = {number: 1 + names.index(name) for number, name in listed.items()}
        images = _images(content, path, ids)
        boxes: dict[Any, list[tuple[float, ...]]] = {number: [] for number in images}
        for where, entry in _annotations(content, path):
            number, category = (ids(entry.get(key)) for key in ("image_id", "category_id"))
            if number not in images:
                given = shown(entry.get("image_id"))
                raise UserError(f"{where} is of image {given}, which is not listed")
            if category not in label_of:
                given = shown(entry.get("category_id"))
                raise UserError(f"{where} is of category {given}, which is not listed")
            x, y, w, h = _box(entry.get("bbox"), where)
            _, height, width = images[number]
            x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
            if x2 - x1 >= 1 and y2 - y1 >= 1:
                row = (x1, y1, x2, y2, label_of[category], bool(entry.get("iscrowd", 0)))
                boxes[number].append(row)
        ids.warn(path)
        rows = np.array([row for one in boxes.values() for row in one]).reshape(-1, 6)
        files = tuple(_file(split, name) for name, _, _ in images.values())
        _require_files(coco, files, path)
        return cls(
            files,
            np.array([(height, width) for _, height, width in images.values()]).reshape(-1, 2),
            np.cumsum([0, *(len(one) for one in boxes.values())]),
            rows[:, :4].astype(np.float32),
            rows[:, 4].astype(np.int64),
            rows[:, 5].astype(np.int64),
        )


def annotation_file(coco: Path, split: str) -> Path:
    """The annotations of a split.

    Raises:
        MissingInputError: if there are none.
    """
    name = f"instances_{split}.json"
    for path in (coco / "annotations" / name, coco / name):
        if path.is_file():
            return path
    raise MissingInputError(f"{coco} has neither annotations/{name} nor {name}: set COCO=")


def category_names(coco: Path, split: str) -> list[str]:
    """Names of a split's categories by rising id, the classes from 1 on.

    Raises:
        MissingInputError: if there are no annotations.
        UserError: if the file is damaged or a category is malformed or repeated.
    """
    path = annotation_file(coco, split)
    listed = _categories(read_annotations(path), path, IdReader())
    return [listed[number] for number in sorted(listed, key=_order)]


def read_annotations(path: Path) -> dict[str, Any]:
    """Reads a COCO file with its three lists.

    Raises:
        UserError: if it is no JSON or a list is missing.
    """
    content = read_json(path, "fetch it again")
    missing = [name for name in LISTS if not isinstance(content.get(name), list)]
    if missing:
        raise UserError(f"{path} has no {', '.join(missing)}: it is no COCO detection file")
    return content


def _annotations(content: dict[str, Any], path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Annotations with what to call them in a message; nothing refers to their ids."""
    for position, entry in enumerate(content["annotations"]):
        if not isinstance(entry, dict):
            raise UserError(f"{path}: annotation at position {position} is {shown(entry)}")
        yield f"{path}: annotation {shown(entry.get('id', f'at position {position}'))}", entry


def _entries(
    content: dict[str, Any], name: str, kind: str, path: Path, ids: IdReader
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Entries of a list with what to call them in a message, and their ids.

    Entries listed again are left out.
    """
    seen: dict[Any, dict[str, Any]] = {}
    try:
        entries = ids.of_entries(content[name], name)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    for number, entry in entries:
        where = f"{path}: {kind} {shown(number)}"
        if number not in seen:
            seen[number] = entry
            yield where, number, entry
        elif seen[number] != entry:
            raise UserError(f"{where} is listed twice with other content: remove one")
        else:
            warnings.warn(f"{where} is listed twice; one is used", stacklevel=2)


def _categories(content: dict[str, Any], path: Path, ids: IdReader) -> dict[Any, str]:
    """Names of the categories by id."""
    names: dict[Any, str] = {}
    for where, number, entry in _entries(content, "categories", "category", path, ids):
        name = entry.get("name")
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{where} has the name {shown(name)}: categories are known by names")
        if name.strip() in names.values():
            raise UserError(f"{where} is {name.strip()} like another category: merge them")
        if name != name.strip():
            warnings.warn(
                f"{where}: the name {shown(name)} is read without its blanks", stacklevel=2
            )
        names[number] = name.strip()
    return names


def _images(content: dict[str, Any], path: Path, ids: IdReader) -> dict[Any, tuple[str, int, int]]:
    """File name, height and width of the images by id, by rising id."""
    images: dict[Any, tuple[str, int, int]] = {}
    files: set[str] = set()
    for where, number, entry in _entries(content, "images", "image", path, ids):
        name = entry.get("file_name")
        if not isinstance(name, str) or not name:
            raise UserError(f"{where} has the file_name {shown(name)}, which names no file")
        if name in files:
            raise UserError(f"{where} is {name} like another image: remove one")
        files.add(name)
        sides = [_side(entry.get(key), key, where) for key in ("height", "width")]
        images[number] = (name, *sides)  # type: ignore[assignment]
    return {number: images[number] for number in sorted(images, key=_order)}


def _side(value: Any, key: str, where: str) -> int:
    """A side of an image in pixels, also where it was written as 640.0."""
    side = whole_number(value)
    if side is None or side < 1:
        raise UserError(f"{where} has {key} {shown(value)}, no whole number of pixels")
    return side


def _box(value: Any, where: str) -> tuple[float, float, float, float]:
    numbers = (
        isinstance(value, list)
        and len(value) == 4
        and all(
            isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one)
            for one in value
        )
    )
    if not numbers:
        raise UserError(f"{where} has the bbox {shown(value)}: four numbers x, y, w, h are wanted")
    return tuple(value)


def _order(number: int | str) -> tuple[bool, int | str]:
    """Numbers in their order, then texts in theirs."""
    return isinstance(number, str), number


def _file(split: str, name: str) -> str:
    """Path of an image below the data set: names come with or without the folder of the split."""
    return name if name.startswith(f"{split}/") else f"{split}/{name}"


def _require_files(coco: Path, files: Sequence[str], path: Path) -> None:
    """Refuses annotations of images that are not there, before any work begins."""
    folders = {(coco / file).parent for file in files}
    present = {entry for folder in folders if folder.is_dir() for entry in folder.iterdir()}
    missing = [file for file in files if coco / file not in present]
    if missing:
        raise MissingInputError(
            f"{coco / missing[0]} and {len(missing) - 1} more of the {len(files)} images in {path} "
            "do not exist: complete the folder, or take them out of the file"
        )
