"""Semantic IoU of composite part maps, image by image, gathered over processes."""

from collections.abc import Mapping

import numpy as np

from modules.metrics.all_ranks import from_all_ranks
from modules.metrics.part_iou import iou_by_part, pixel_counts

# Of one image: part id, pixels that both maps give it, that the guess does, that the truth does.
Counts = np.ndarray


class CompositeIoU:
    """IoU of each part between label maps, pixels pooled over all images.

    Args:
        names: one name per source of label maps.
        num_parts: K, part ids are 1..K and 0 is the background.
    """

    def __init__(self, names: tuple[str, ...], num_parts: int) -> None:
        self.names = names
        self.size = num_parts + 1
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self.images: dict[str, dict[str, Counts]] = {}

    def update(self, key: str, truth: np.ndarray, guesses: Mapping[str, np.ndarray]) -> None:
        """Adds one image; an image that is already there is replaced.

        Args:
            key: name of the image.
            truth: part ids `(H, W)`.
            guesses: for each name part ids `(H, W)`.
        """
        self.images[key] = {name: self._counts(truth, guesses[name]) for name in self.names}

    def _counts(self, truth: np.ndarray, guess: np.ndarray) -> Counts:
        counts = pixel_counts(truth, guess, self.size)
        table = np.stack([np.arange(self.size), *counts], axis=1)[1:]
        return table[table[:, 1:].any(axis=1)].astype(np.int32)  # a few parts of thousands

    def compute(self) -> dict[str, dict[int, float]]:
        """IoU in [0, 1] by name and part, of the parts that the truth shows; equal on all ranks.

        All processes must call it.
        """
        return from_all_ranks(self.images, self._combine)

    def _combine(self, shards: list[dict[str, dict[str, Counts]]]) -> dict[str, dict[int, float]]:
        images = {key: counts for shard in shards for key, counts in shard.items()}
        result = {}
        for name in self.names:
            overlap, guessed, true = np.zeros((3, self.size), np.int64)
            for counts in images.values():
                part = counts[name][:, 0]
                for total, column in zip((overlap, guessed, true), counts[name].T[1:], strict=True):
                    total[part] += column
            iou = iou_by_part(overlap, guessed, true)
            result[name] = {int(part): float(iou[part]) for part in np.flatnonzero(true)}
        return result


def mean_iou(by_part: Mapping[int, float]) -> float:
    """Mean over the parts; -1 without any."""
    return sum(by_part.values()) / len(by_part) if by_part else -1.0
