"""Boxes in the annotation format of COCO."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from datamodules.files.errors import MissingInputError, UserError


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
    def read(cls, coco: Path, split: str, categories: Sequence[int]) -> Self:
        """Reads a split; boxes are clipped, and those of less than a pixel left out.

        Args:
            coco: folder of the data set.
            split: name of the split, such as `val2017`.
            categories: category id of each class.

        Raises:
            MissingInputError: if the annotations or the folder of the images are missing.
            UserError: if the annotations are damaged or name an unknown category or image.
        """
        path = annotation_file(coco, split)
        content = read_annotations(path)
        if {category["id"] for category in content["categories"]} != set(categories):
            raise UserError(f"{path} has other categories than the annotations of the val split")
        label_of = {category: label for label, category in enumerate(categories, start=1)}
        images = sorted(content["images"], key=lambda image: image["id"])
        found: dict[int, list[tuple[float, ...]]] = {image["id"]: [] for image in images}
        size_of = {image["id"]: (image["width"], image["height"]) for image in images}
        for annotation in content["annotations"]:
            number, category = annotation["image_id"], annotation["category_id"]
            if number not in found or category not in label_of:
                raise UserError(
                    f"{path}: annotation {annotation['id']} is of image {number} and category "
                    f"{category}, one of which is not listed: remove it"
                )
            (x, y, w, h), (width, height) = annotation["bbox"], size_of[number]
            x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
            if x2 - x1 >= 1 and y2 - y1 >= 1:
                row = (x1, y1, x2, y2, label_of[category], annotation.get("iscrowd", 0))
                found[number].append(row)
        rows = np.array([row for one in found.values() for row in one]).reshape(-1, 6)
        folder = coco / split
        return cls(
            tuple(_file(coco, folder, image["file_name"]) for image in images),
            np.array([(image["height"], image["width"]) for image in images]).reshape(-1, 2),
            np.cumsum([0, *(len(one) for one in found.values())]),
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


def read_annotations(path: Path) -> dict[str, Any]:
    """Reads a COCO file.

    Raises:
        UserError: if it is no JSON or a list is missing.
    """
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): fetch it again") from None
    missing = [k for k in ("images", "annotations", "categories") if k not in content]
    if missing:
        raise UserError(f"{path} has no {', '.join(missing)}: it is no COCO detection file")
    return content


def _file(coco: Path, folder: Path, name: str) -> str:
    """Path of an image below `coco`: names are given with or without the folder of the split."""
    return name if name.startswith(f"{folder.name}/") else str((folder / name).relative_to(coco))
