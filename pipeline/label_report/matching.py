"""Which pseudo parts find a human part: COCO's matching, image by image, on run lengths."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from datamodules.masks.part_labels import ImageParts
from modules.metrics.coco_ap import precision_by_label
from modules.metrics.coco_matching import (
    FOUND,
    TRUTH,
    Instances,
    IoUType,
    match,
    truth_table,
    unpack,
)


@dataclass(frozen=True)
class CalibrationBin:
    """Pseudo parts of one range of scores.

    Attributes:
        low, high: the range, `low < score <= high` (the first one includes its low end).
        count: pseudo parts in it.
        score: their mean score, None without any.
        precision: share of them that find a human part at IoU 0.5, None without any.
    """

    low: float
    high: float
    count: int
    score: float | None
    precision: float | None


class PartMatches:
    """Matches of pseudo and human parts, and what follows from them: AP and calibration.

    Only scores and outcomes are kept, no masks.
    """

    def __init__(self) -> None:
        self._truth = [np.zeros(0, TRUTH)]
        self._found = [np.zeros(0, FOUND)]

    def add(self, truth: ImageParts, found: ImageParts) -> None:
        """Matches the instances of one image, by falling score and within a part category."""
        human = part_instances(truth)
        self._truth.append(truth_table(human))
        self._found.append(match(human, part_instances(found)))

    def human_parts(self) -> dict[int, int]:
        """Number of human instances by part id, of the parts that people marked."""
        parts, counts = np.unique(np.concatenate(self._truth)["label"], return_counts=True)
        return dict(zip(parts.tolist(), counts.tolist(), strict=True))

    def average_precision(self) -> dict[int, tuple[float, float]]:
        """AP (IoU 0.50:0.05:0.95) and AP50 in [0, 1] of every part that people marked."""
        values = precision_by_label(self._truth, self._found)
        return {part: (one.AP, one.AP50) for part, one in values.items()}

    def calibration(self, bins: int = 10) -> tuple[list[CalibrationBin], float | None]:
        """Reliability of the scores: precision at IoU 0.5 over equal bins of score.

        Args:
            bins: how many bins [0, 1] is cut into.

        Returns:
            The bins, and the expected calibration error (Guo et al. 2017): the mean distance of
            score and precision, weighted by the bins' counts; None without pseudo parts.
        """
        found = np.concatenate(self._found)
        scores, right = found["score"], unpack(found["matched"])[0, 0]
        edges = np.linspace(0, 1, bins + 1)
        place = np.clip(np.searchsorted(edges, scores, side="left") - 1, 0, bins - 1)
        table = []
        for index in range(bins):
            inside = place == index
            count = int(inside.sum())
            score, precision = (
                (float(scores[inside].mean()), float(right[inside].mean()))
                if count
                else (None, None)
            )
            ends = float(edges[index]), float(edges[index + 1])
            table.append(CalibrationBin(*ends, count, score, precision))
        if not len(scores):
            return table, None
        gaps = [
            one.count * abs(one.score - one.precision)
            for one in table
            if one.score is not None and one.precision is not None
        ]
        return table, sum(gaps) / len(scores)


def part_instances(
    parts: ImageParts, iou_type: IoUType = "segm", *, found: bool = True
) -> Instances:
    """The parts of an image as instances to match.

    Args:
        parts: the image.
        iou_type: `segm` compares masks, `bbox` boxes.
        found: the parts are detections. COCO takes their area from what is compared, that of true
            parts from the mask.
    """
    size = [parts.height, parts.width]
    runs = [{"size": size, "counts": one.rle} for one in parts.instances]
    corners = np.array([one.box for one in parts.instances], np.float64).reshape(-1, 4)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    masks = np.array(coco_mask.area(runs) if runs else (), np.float64)

    def shapes(chosen: np.ndarray) -> list[Any]:
        return [runs[place] for place in chosen] if iou_type == "segm" else boxes[chosen].tolist()

    return Instances(
        np.array([one.part for one in parts.instances], np.int64),
        boxes[:, 2:].prod(axis=1) if found and iou_type == "bbox" else masks,
        shapes,
        np.array([one.score for one in parts.instances], np.float64),
        np.zeros(len(runs), bool),
    )
