"""Composite part masks and their run lengths."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from datamodules.masks.part_labels import ImageParts


def composite(parts: ImageParts, inclusions: Iterable[tuple[int, int]]) -> np.ndarray:
    """One label map of all parts of an image (PartImageNet++ §4.1).

    Instances are painted in ascending score (human annotations in file order), later paint
    wins; a part that is included in another is never painted before it.

    Args:
        parts: the image's instances.
        inclusions: pairs (part id, id of the whole that includes it).

    Returns:
        Part ids `(H, W)` int32, 0 = background.
    """
    labels = np.zeros((parts.width, parts.height), np.int32)
    if parts.instances:
        size = [parts.height, parts.width]
        masks = coco_mask.decode([{"size": size, "counts": part.rle} for part in parts.instances])
        masks = masks.T.view(bool)  # (N, W, H), as COCO lays masks out: no copies
        for index in _painting_order(parts, inclusions):
            np.putmask(labels, masks[index], parts.instances[index].part)
    return np.ascontiguousarray(labels.T)


def _painting_order(parts: ImageParts, inclusions: Iterable[tuple[int, int]]) -> list[int]:
    wholes: dict[int, set[int]] = {}
    for part, whole in inclusions:
        wholes.setdefault(part, set()).add(whole)

    def ancestors(part: int, seen: frozenset[int] = frozenset()) -> frozenset[int]:
        found = frozenset(wholes.get(part, ())) - seen
        return found.union(*(ancestors(whole, seen | found) for whole in found))

    best: dict[int, float] = {}
    for instance in parts.instances:
        best[instance.part] = max(best.get(instance.part, 0.0), instance.score)

    def rank(index: int) -> tuple[float, int]:
        instance = parts.instances[index]
        above = ancestors(instance.part) - {instance.part}
        score = max([instance.score, *(best[whole] for whole in above if whole in best)])
        return score, len(above)

    return sorted(range(len(parts.instances)), key=rank)  # stable: ties keep their order


@dataclass(frozen=True)
class LabelRuns:
    """A label map as runs over its pixels in row order.

    Attributes:
        ends: end of each run, exclusive, rising, int32 `(R,)`; the last is `height * width`.
        values: part id of each run, int32 `(R,)`; neighbours may be equal.
        height, width: size of the map.
    """

    ends: np.ndarray
    values: np.ndarray
    height: int
    width: int

    @classmethod
    def encode(cls, labels: np.ndarray) -> "LabelRuns":
        """Runs of a label map `(H, W)`."""
        flat = labels.reshape(-1)
        if not flat.size:
            return cls(np.empty(0, np.int32), np.empty(0, np.int32), *labels.shape)
        ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size).astype(np.int32)
        return cls(ends, flat[ends - 1].astype(np.int32), *labels.shape)

    def at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Part ids at pixels: `rows (h,)` and `columns (w,)` give `(h, w)` int32."""
        # the type of `ends`, or searching would convert them all
        pixels = (rows * self.width).astype(np.int32)[:, None] + columns.astype(np.int32)
        return self.values.take(self.ends.searchsorted(pixels, side="right"))
