"""Finds the photographs of which small copies were made, by their content."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.images.image_files import read_image

COPY_SIDE = 64  # of a copy in pixels
CELLS = 32  # a copy is compared by the mean colours of 32 x 32 cells
LIMIT = 10.0  # largest RMS difference between the cells of a copy and its origin, in grey levels
MARGIN = 0.5  # beyond it, the nearest photograph must be so much nearer than the next
DUPLICATE = 1.3  # photographs this many times as far as the nearest show the same


@dataclass(frozen=True)
class Match:
    """Where a copy comes from.

    Attributes:
        origins: names of the photographs that show the same, nearest first: the origin and its
            duplicates; empty if none does.
        distance: to the nearest photograph, RMS difference of cells in grey levels.
        runner_up: to the nearest photograph that is not among the origins, if there is one.
    """

    origins: tuple[str, ...]
    distance: float
    runner_up: float | None


def descriptors(image: Image.Image) -> np.ndarray:
    """What copies of an image would look like, float32 `(2, 3 * CELLS**2)` in [0, 255].

    The copies of Tiny-ImageNet are the largest central square, resized bilinearly to 64 pixels;
    whether with a low-pass filter depends on the library of the day, so there is one row with
    and one without.

    Args:
        image: RGB.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    size = (COPY_SIDE, COPY_SIDE)
    copies = (
        image.resize(size, Image.Resampling.BILINEAR, box=box),
        image.transform(size, Image.Transform.EXTENT, box, Image.Resampling.BILINEAR),
    )
    cells = [copy.reduce(COPY_SIDE // CELLS) for copy in copies]
    return np.stack([np.asarray(cell, dtype=np.float32).ravel() for cell in cells])


def find_origins(copies: Sequence[Path], photographs: Sequence[Path]) -> dict[str, Match]:
    """Finds the photographs of which copies were made.

    The nearest photograph is the origin if it differs by no more than `LIMIT`, or if all others
    differ at least `1 / MARGIN` times as much: unforeseen ways of resizing do not hide it.
    Photographs that differ hardly more are its duplicates.

    Args:
        copies: small images.
        photographs: where they may come from, one at least; all are decoded once.

    Returns:
        One match by the name of each copy.

    Raises:
        UserError: if an image cannot be decoded.
    """
    wanted = np.stack([descriptors(read_image(path))[0] for path in copies])
    squares = np.full((len(copies), len(photographs)), np.inf, dtype=np.float32)
    for column, path in enumerate(photographs):
        for row in descriptors(read_image(path)):
            squares[:, column] = np.minimum(squares[:, column], np.square(wanted - row).mean(1))
    distances = np.sqrt(squares)
    names = [path.name for path in photographs]
    return {
        copy.name: _match(names, row) for copy, row in zip(copies, distances.tolist(), strict=True)
    }


def _match(names: Sequence[str], distances: Sequence[float]) -> Match:
    ranked = sorted(zip(distances, names, strict=True))
    nearest = ranked[0][0]
    found = nearest <= LIMIT or (len(ranked) > 1 and nearest <= MARGIN * ranked[1][0])
    count = sum(distance <= DUPLICATE * nearest for distance in distances) if found else 0
    origins = tuple(name for _, name in ranked[:count])
    runner_up = ranked[count][0] if count < len(ranked) else None
    return Match(origins, nearest, runner_up)
