"""COCO's three spellings of a mask, checked before anything of them is trusted.

The C code behind `pycocotools` believes what it is given: run lengths that stop in mid-number are
read past their end, coordinates without bounds are rasterised. Nothing reaches it from here that
does not describe a mask of the image's own size.
"""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from datamodules.files.errors import UserError, shown
from datamodules.files.integers import whole_number

OUTSIDE_TOLERANCE = 1.0  # pixels; coordinates at the border are rounded differently by tools
BOX_TOLERANCE = 2.0  # pixels between a listed box and the extent of the mask as rasterised
MAX_SIDE = 65_535  # of a JPEG
MAX_PIXELS = 2**31 - 1  # run lengths are 32-bit in `pycocotools`
_CHARACTER_BITS = 5
_MAX_CHARACTERS = 7  # of one run length: 35 bits
_NOT_NUMBERS = (TypeError, ValueError, OverflowError, RecursionError)


class SegmentationError(UserError):
    """A segmentation that is no mask of its image.

    Attributes:
        kind: a key of `annotation_problems.KINDS`.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def compress(segmentation: Any, height: int, width: int) -> bytes:
    """Compressed run lengths of polygons, uncompressed or compressed run lengths.

    Args:
        segmentation: what an annotation file holds; anything may come.
        height: of the image in pixels, 1 to `MAX_SIDE`.
        width: the same.

    Returns:
        COCO's compressed counts of a mask `(height, width)`.

    Raises:
        SegmentationError: if it is not a mask of an image of that size.
    """
    if isinstance(segmentation, list):
        return _from_polygons(segmentation, height, width)
    if not isinstance(segmentation, dict):
        raise SegmentationError("malformed_entry", f"{shown(segmentation)} is no mask")
    size, counts = segmentation.get("size"), segmentation.get("counts")
    sides = [whole_number(side) or 0 for side in size] if isinstance(size, list) else []
    if len(sides) != 2 or min(sides) < 1:
        raise SegmentationError("malformed_entry", f"'size' is {shown(size)}, not [height, width]")
    if sides != [height, width]:
        raise SegmentationError(
            "size_mismatch",
            f"mask is {shown(sides[0])}x{shown(sides[1])}, its image {height}x{width} "
            "(height x width)",
        )
    if isinstance(counts, list):
        return _from_runs(counts, height, width)
    if not isinstance(counts, str):
        raise SegmentationError("broken_runs", f"'counts' is {shown(counts)}, not run lengths")
    try:
        compressed = counts.encode("ascii")
    except UnicodeEncodeError:
        raise SegmentationError("broken_runs", "compressed counts are not ASCII") from None
    _check_runs(run_lengths(compressed), height, width)
    return compressed


def run_lengths(counts: bytes) -> np.ndarray:
    """Expands COCO's compressed counts without decoding the mask.

    Each number is written in groups of five bits, low ones first; from the fourth on, the
    difference to the number two places before is written.

    Args:
        counts: compressed counts.

    Returns:
        Lengths of the runs, int64 `(R,)`, in column order, the first one of background.

    Raises:
        SegmentationError: if the bytes are not such a code.
    """
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - ord("0")
    if not codes.size or codes.min() < 0 or codes.max() > 63:
        raise SegmentationError("broken_runs", "compressed counts are empty or hold odd characters")
    last = np.flatnonzero((codes & 32) == 0)
    if not last.size or last[-1] != codes.size - 1:
        raise SegmentationError("broken_runs", "compressed counts stop within a number")
    first = np.concatenate(([0], last[:-1] + 1))
    lengths = last - first + 1
    if lengths.max() > _MAX_CHARACTERS:
        raise SegmentationError("broken_runs", "compressed counts hold a number beyond any image")
    place = np.arange(codes.size) - np.repeat(first, lengths)
    values = np.add.reduceat((codes & 31) << (_CHARACTER_BITS * place), first)
    negative = (codes[last] & 16) != 0
    values[negative] -= np.int64(1) << (_CHARACTER_BITS * lengths[negative])
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def box_problem(listed: Any, extent: tuple[float, float, float, float]) -> tuple[str, str] | None:
    """Kind and message of what is wrong with the listed box of a mask, None if all is well.

    Args:
        listed: `bbox` of an annotation, `[x, y, width, height]` in pixels; anything may come, and
            None stands for no box.
        extent: `(x1, y1, x2, y2)` of the mask in pixels.
    """
    if listed is None:
        return None
    values = numbers(listed)
    if values is None or values.size != 4:
        return "box_mismatch", f"bbox {shown(listed)} is not [x, y, width, height]"
    x, y, width, height = (float(value) for value in values)
    x1, y1, x2, y2 = extent
    far = max(abs(x - x1), abs(y - y1), abs(x + width - x2), abs(y + height - y2))
    if far <= BOX_TOLERANCE:
        return None
    spans = f"the mask, which spans {[x1, y1, x2 - x1, y2 - y1]}"
    if max(x - x2, x1 - (x + width), y - y2, y1 - (y + height)) > BOX_TOLERANCE:
        return "box_elsewhere", f"bbox {shown(listed)} lies apart from {spans}"
    return "box_mismatch", f"bbox {shown(listed)} does not fit {spans}"


def numbers(values: Any) -> np.ndarray | None:
    """A flat JSON list of finite numbers as an array `(N,)`, None if it is anything else."""
    if not isinstance(values, list):
        return None
    try:
        array = np.asarray(values)
    except _NOT_NUMBERS:
        return None
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iuf"):
        return None
    return array if np.isfinite(array.astype(np.float64)).all() else None


def _from_polygons(polygons: list[Any], height: int, width: int) -> bytes:
    if not polygons:
        raise SegmentationError("empty_polygon", "it holds no polygon")
    for polygon in polygons:
        points = numbers(polygon)
        if points is None:
            raise SegmentationError(
                "malformed_entry", f"polygon {shown(polygon)} is no number list"
            )
        if points.size < 6 or points.size % 2:
            raise SegmentationError(
                "degenerate_polygon",
                f"a polygon needs three points or more, this one has {points.size} numbers",
            )
        x, y = points[::2].astype(np.float64), points[1::2].astype(np.float64)
        outside = max(-x.min(), x.max() - width, -y.min(), y.max() - height)
        if outside > OUTSIDE_TOLERANCE:
            raise SegmentationError(
                "mask_outside",
                f"polygon over x {x.min():g} to {x.max():g}, y {y.min():g} to {y.max():g} leaves "
                f"its image of {height}x{width} (height x width)",
            )
    return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))["counts"]


def _from_runs(counts: list[Any], height: int, width: int) -> bytes:
    runs = numbers(counts)
    if runs is None or (runs.size and runs.dtype.kind == "f"):
        raise SegmentationError("broken_runs", f"'counts' {shown(counts)} are not run lengths")
    _check_runs(runs, height, width)
    return coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)[
        "counts"
    ]


def _check_runs(runs: np.ndarray, height: int, width: int) -> None:
    pixels = height * width
    if runs.size and (runs.min() < 0 or runs.max() > pixels):
        raise SegmentationError(
            "broken_runs", f"a run is {runs.min()} or {runs.max()} long in {pixels} pixels"
        )
    if int(runs.sum()) != pixels:
        raise SegmentationError("broken_runs", f"runs cover {int(runs.sum())} of {pixels} pixels")
