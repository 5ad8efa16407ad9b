"""Which pseudo parts find a human part: COCO's matching, image by image, on run lengths."""

import contextlib
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from datamodules.masks.part_labels import ImageParts

MAX_DETECTIONS = 100  # per image and part, COCO's convention


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
        self._entries: dict[int, list[dict[str, Any]]] = defaultdict(list)

    def add(self, truth: ImageParts, found: ImageParts) -> None:
        """Matches the instances of one image, by falling score and within a part category."""
        parts = sorted({one.part for one in (*truth.instances, *found.instances)})
        if not parts:
            return
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(_one_image(truth), _one_image(found))
            _set_parameters(evaluation, parts, [0])
            evaluation.evaluate()
        for entry in evaluation.evalImgs:
            if entry is not None:
                self._entries[entry["category_id"]].append(
                    {
                        "dtScores": np.asarray(entry["dtScores"], np.float32),
                        "dtMatches": entry["dtMatches"] > 0,
                        "dtIgnore": entry["dtIgnore"] > 0,
                        "gtIgnore": np.zeros(len(entry["gtIds"]), bool),
                    }
                )

    def human_parts(self) -> dict[int, int]:
        """Number of human instances by part id, of the parts that people marked."""
        counts = {
            part: sum(len(entry["gtIgnore"]) for entry in entries)
            for part, entries in sorted(self._entries.items())
        }
        return {part: count for part, count in counts.items() if count}

    def average_precision(self) -> dict[int, tuple[float, float]]:
        """AP (IoU 0.50:0.05:0.95) and AP50 in [0, 1] of every part that people marked."""
        values = {}
        for part in self.human_parts():
            entries = self._entries[part]
            evaluation = COCOeval(iouType="segm")
            _set_parameters(evaluation, [part], range(len(entries)))
            evaluation.evalImgs, evaluation._paramsEval = entries, evaluation.params
            with contextlib.redirect_stdout(io.StringIO()):
                evaluation.accumulate()
            precision = evaluation.eval["precision"][:, :, 0, 0, 0]  # IoU thresholds, recalls
            values[part] = float(precision.mean()), float(precision[0].mean())
        return values

    def calibration(self, bins: int = 10) -> tuple[list[CalibrationBin], float | None]:
        """Reliability of the scores: precision at IoU 0.5 over equal bins of score.

        Args:
            bins: how many bins [0, 1] is cut into.

        Returns:
            The bins, and the expected calibration error (Guo et al. 2017): the mean distance of
            score and precision, weighted by the bins' counts; None without pseudo parts.
        """
        entries = [entry for part in self._entries.values() for entry in part]
        scores = np.concatenate([e["dtScores"] for e in entries] or [np.zeros(0)]).astype(float)
        right = np.concatenate([e["dtMatches"][0] for e in entries] or [np.zeros(0, bool)])
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


def _set_parameters(evaluation: COCOeval, parts: Sequence[int], images: Iterable[int]) -> None:
    evaluation.params.catIds, evaluation.params.imgIds = list(parts), list(images)
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.params.maxDets = [MAX_DETECTIONS]


def _one_image(parts: ImageParts) -> COCO:
    size = [parts.height, parts.width]
    runs = [{"size": size, "counts": one.rle} for one in parts.instances]
    areas = coco_mask.area(runs) if runs else ()
    coco = COCO()
    coco.dataset = {
        "images": [{"id": 0, "height": parts.height, "width": parts.width}],
        "annotations": [
            {
                "id": number,
                "image_id": 0,
                "category_id": one.part,
                "score": one.score,
                "segmentation": rle,
                "area": float(area),
                "iscrowd": 0,
            }
            for number, (one, rle, area) in enumerate(
                zip(parts.instances, runs, areas, strict=True), start=1
            )
        ],
        "categories": [{"id": part} for part in sorted({one.part for one in parts.instances})],
    }
    coco.createIndex()
    return coco
