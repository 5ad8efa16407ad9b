"""Pseudo labels against human annotations: IoU of parts and coverage of the object."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.masks.part_labels import ImageParts
from datamodules.masks.part_masks import composite
from pipeline.label_report.matching import PartMatches


@dataclass(frozen=True)
class ImageQuality:
    """How good the labels of one image are, at the report's least score.

    Attributes:
        key: `object/file`.
        label: object category.
        shard: index of the shard that holds the row.
        parts: pseudo parts kept.
        miou: mean IoU over the parts that composite or annotation shows, None if neither does.
        coverage: IoU of the object, the union of its parts; None if people marked no part.
        recall: share of the object's pixels that have some part; None likewise.
    """

    key: str
    label: int
    shard: int
    parts: int
    miou: float | None
    coverage: float | None
    recall: float | None


class LabelComparison:
    """Compares images one after the other; keeps counts and figures, no masks.

    Args:
        vocabulary: vocabulary of the labels.
        thresholds: least scores to try out.
        min_score: the report's least score, tried out as well.

    Attributes:
        thresholds: all T least scores, ascending.
        chosen: position of `min_score` among them.
        images: one entry per image added.
        matches: instances matched, of any score.
        overlap, predicted: pixels by threshold and part id, int64 (T, K + 1).
        actual: human pixels by part id, int64 (K + 1).
        coverage, recall: sums over `objects` images, float (T,).
        objects: images in which people marked a part.
    """

    def __init__(
        self, vocabulary: PartVocabulary, thresholds: Sequence[float], min_score: float
    ) -> None:
        self.vocabulary = vocabulary
        self.thresholds = sorted({*thresholds, min_score})
        self.chosen = self.thresholds.index(min_score)
        self.images: list[ImageQuality] = []
        self.matches = PartMatches()
        shape = len(self.thresholds), vocabulary.num_parts + 1
        self.overlap, self.predicted = (np.zeros(shape, np.int64) for _ in range(2))
        self.actual = np.zeros(vocabulary.num_parts + 1, np.int64)
        self.coverage, self.recall = (np.zeros(shape[0]) for _ in range(2))
        self.objects = 0
        self._place = np.zeros(vocabulary.num_parts + 1, np.int32)

    def add(self, row: ImageParts, truth: ImageParts, shard: int = 0) -> str:
        """Adds one image; one with an error, or of another size, counts as without parts.

        Args:
            row: its pseudo labels.
            truth: its human annotation.
            shard: index of the shard that holds the row.

        Returns:
            What is wrong with the row, empty when all is well.
        """
        problem = row.error
        if not problem and (row.height, row.width) != (truth.height, truth.width):
            problem = (
                f"is {row.height}x{row.width} in the labels and {truth.height}x{truth.width} in "
                "the annotations (height x width)"
            )
        found = replace(truth, instances=() if problem else row.instances, error="")
        self.matches.add(truth, found)
        ids = np.array(sorted({0, *(one.part for one in (*truth.instances, *found.instances))}))
        self._place[ids] = np.arange(len(ids))
        target = self._place[composite(truth, self.vocabulary.inclusions)] * len(ids)
        tables: dict[int, np.ndarray] = {}
        for index, threshold in enumerate(self.thresholds):
            confident = found.confident(threshold)
            kept = len(confident.instances)
            # many thresholds keep the same instances: each composite is painted once
            if kept not in tables:
                guess = composite(confident, self.vocabulary.inclusions)
                pairs = np.bincount((target + self._place[guess]).ravel(), minlength=len(ids) ** 2)
                tables[kept] = pairs.reshape(len(ids), len(ids))
            table = tables[kept]  # human part, pseudo part
            self.overlap[index, ids] += table.diagonal()
            self.predicted[index, ids] += table.sum(axis=0)
            covered = _object_coverage(table)
            if covered is not None:
                self.coverage[index] += covered[0]
                self.recall[index] += covered[1]
            if index == self.chosen:
                self.actual[ids] += table.sum(axis=1)
                self.objects += covered is not None
                coverage, recall = covered or (None, None)
                quality = row.key, row.label, shard, kept, _part_iou(table), coverage, recall
                self.images.append(ImageQuality(*quality))
        return problem


def _object_coverage(table: np.ndarray) -> tuple[float, float] | None:
    """IoU and recall of all parts together; 0 is the background."""
    actual = table[1:].sum()
    if not actual:
        return None
    both = table[1:, 1:].sum()
    return float(both / (table.sum() - table[0, 0])), float(both / actual)


def _part_iou(table: np.ndarray) -> float | None:
    both = table.diagonal()[1:]
    union = table.sum(axis=0)[1:] + table.sum(axis=1)[1:] - both
    return float(np.mean(both[union > 0] / union[union > 0])) if union.any() else None
