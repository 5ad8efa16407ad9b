"""Reader of Pascal-Part's annotations (Chen et al., CVPR 2014), one MATLAB file an image."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from datamodules.annotations.object_parts import AnnotatedObject, extent
from datamodules.files.errors import MissingInputError, UserError, shown

PASCAL_CLASSES = frozenset(
    [
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "table",
        "train",
        "tvmonitor",
    ]
)
"""VOC's 20 categories; `table` is another spelling of `diningtable`."""
_INSTANCE = re.compile(r"_\d+$")


def read_pascal_part(file: Path, height: int, width: int) -> list[AnnotatedObject]:
    """Reads `Annotations_Part/<image>.mat`.

    The number in names such as `engine_2` tells instances apart; every mask stays one of its own,
    named `engine`.

    Args:
        file: holds the struct `anno` with `imname` and `objects`.
        height: of the image in pixels.
        width: the same.

    Returns:
        All objects in file order, numbered from 1.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if it is no such file, of another image or size, or names an unknown category.
    """
    try:
        with file.open("rb") as stream:
            content = loadmat(stream, variable_names=["anno"])
    except FileNotFoundError:
        raise MissingInputError(f"{file} does not exist: every listed image needs one") from None
    except Exception as error:  # damaged files end in nearly any exception
        reason = str(error) or type(error).__name__
        raise UserError(f"{file} is no MATLAB file that can be read ({reason})") from None
    try:
        anno = content["anno"].ravel()[0]
        name = _text(anno["imname"])
        entries = [
            (_text(one["class"]), one["mask"], list(_parts(one["parts"])))
            for one in anno["objects"].ravel()
        ]
    except (KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
        raise UserError(f"{file} has not the structure of Pascal-Part ({error!r})") from None
    if name not in (file.stem, f"{file.stem}.jpg"):
        raise UserError(f"{file} annotates the image {shown(name)}: name both alike")
    found = []
    for number, (category, mask, parts) in enumerate(entries, start=1):
        where = f"{file}: object {number} ({category})"
        if category not in PASCAL_CLASSES:
            known = ", ".join(sorted(PASCAL_CLASSES))
            raise UserError(f"{where} is of no category of VOC; known: {known}")
        whole = _checked(mask, height, width, where)
        masks = [(p, _checked(m, height, width, f"{where}, part {p}")) for p, m in parts]
        box = extent(np.logical_or.reduce([whole, *(one for _, one in masks)]))
        found.append(
            AnnotatedObject(
                category,
                number,
                box,
                whole[box.slices].copy(),  # a view would keep the whole image's mask
                tuple((_INSTANCE.sub("", p), m[box.slices].copy()) for p, m in masks),
            )
        )
    return found


def _parts(parts: np.ndarray) -> Iterator[tuple[str, Any]]:
    for part in parts.ravel():  # MATLAB's empty list is a matrix of no entries
        yield _text(part["part_name"]), part["mask"]


def _text(value: np.ndarray) -> str:
    text = value.item()
    if not isinstance(text, str) or not text or re.search(r"[/\\:]", text):
        raise ValueError(f"{shown(text)} is no name")
    return text


def _checked(mask: Any, height: int, width: int, where: str) -> np.ndarray:
    if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "buif":
        raise UserError(f"{where}: its mask is {shown(mask)}, not a matrix of numbers")
    if mask.shape != (height, width):
        raise UserError(
            f"{where}: its mask is {'x'.join(map(str, mask.shape))}, its image {height}x{width} "
            "(height x width): take the images that the annotations were made for, or take this "
            "one out of the list"
        )
    return mask != 0
