"""One annotated object of an image, whatever format it was read from."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from datamodules.masks.part_labels import encode_mask


class Box(NamedTuple):
    """Pixels from `left` to `right` and from `top` to `bottom`, the ends exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def height(self) -> int:
        """In pixels."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """In pixels."""
        return self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of an array `(H, W)`."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def overlap(self, other: "Box") -> "Box":
        """Pixels of both; of no size where there are none."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        return Box(left, top, max(left, right), max(top, bottom))

    def within(self, other: "Box") -> "Box":
        """This box as counted from the corner of another."""
        return Box(
            self.left - other.left,
            self.top - other.top,
            self.right - other.left,
            self.bottom - other.top,
        )


@dataclass(frozen=True)
class AnnotatedObject:
    """One object; masks span its box alone, as a street scene holds dozens of objects.

    Attributes:
        name: object category.
        number: tells it from the other objects of its image.
        box: extent of the object and its parts.
        mask: the object, bool `(box.height, box.width)`.
        parts: names and masks of its parts; parts may overlap, and a name may occur often.
        single: False for a region of several objects that nobody told apart, such as a crowd.
    """

    name: str
    number: int
    box: Box
    mask: np.ndarray
    parts: tuple[tuple[str, np.ndarray], ...]
    single: bool = True

    @property
    def pixels(self) -> int:
        """How many pixels the object covers."""
        return int(self.mask.sum())


def extent(mask: np.ndarray) -> Box:
    """The smallest box around the true pixels of a mask `(H, W)`; of no size if there are none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return Box(0, 0, 0, 0)
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def encode_within(mask: np.ndarray, box: Box, window: Box) -> bytes:
    """Run lengths of a mask, given in its box, over a window that holds the box.

    Args:
        mask: bool `(box.height, box.width)`.
        box: where it lies in the image.
        window: the part of the image that is kept.

    Returns:
        COCO's compressed counts of a mask `(window.height, window.width)`.
    """
    placed = np.zeros((window.height, window.width), np.uint8)
    placed[box.within(window).slices] = mask
    return encode_mask(placed)
