"""The figures of one run as plain values, for the page and the JSON beside it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from modules.metrics.part_iou import iou_by_part
from pipeline.label_report.compare import LabelComparison
from pipeline.label_report.scan import LabelTotals


def summarise(totals: LabelTotals, comparison: LabelComparison) -> dict[str, Any]:
    """Figures of one run; shares, IoU, AP and scores in [0, 1], None where nothing was measured.

    Returns:
        `AP`, `AP50` (mean over the parts that people marked, instances of any score), `miou`
        (mean over the same parts, pixels pooled over images), `coverage` and `recall` of the
        object (mean over images), `ece`, counts, and the tables `thresholds`, `calibration`,
        `objects` and `parts`.
    """
    bins, error = comparison.matches.calibration()
    precision = comparison.matches.average_precision()
    thresholds = _thresholds(totals, comparison)
    chosen = thresholds[comparison.chosen]
    return {
        "min_score": chosen["min_score"],
        "images": int(totals.images.sum()),
        "labelled": int(totals.labelled.sum()),
        "empty": int((totals.images - totals.labelled - totals.errors).sum()),
        "errors": int(totals.errors.sum()),
        "instances": int(totals.instances.sum()),
        "instances_of_any_score": totals.all_instances,
        "compared": len(comparison.images),
        "AP": _mean(ap for ap, _ in precision.values()),
        "AP50": _mean(ap50 for _, ap50 in precision.values()),
        "miou": chosen["miou"],
        "coverage": chosen["coverage"],
        "recall": chosen["recall"],
        "ece": error,
        "best": _best(thresholds),
        "thresholds": thresholds,
        "calibration": [asdict(one) for one in bins],
        "objects": _objects(totals, comparison, precision),
        "parts": _parts(totals, comparison, precision),
        "score_histogram": totals.scores.tolist(),
        "parts_per_image": totals.parts_per_image.tolist(),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _iou(comparison: LabelComparison, threshold: int) -> np.ndarray:
    """IoU by part id, NaN for parts that people did not mark."""
    counts = comparison.overlap[threshold], comparison.predicted[threshold], comparison.actual
    return iou_by_part(*counts)


def _thresholds(totals: LabelTotals, comparison: LabelComparison) -> list[dict[str, Any]]:
    images = max(1, int(totals.images.sum()))
    rows = []
    for index, value in enumerate(comparison.thresholds):
        iou = _iou(comparison, index)
        objects = comparison.objects
        rows.append(
            {
                "min_score": value,
                "miou": _mean(iou[~np.isnan(iou)].tolist()),
                "coverage": float(comparison.coverage[index] / objects) if objects else None,
                "recall": float(comparison.recall[index] / objects) if objects else None,
                "labelled": int(totals.labelled_at[index]),
                "labelled_share": float(totals.labelled_at[index] / images),
            }
        )
    return rows


def _best(thresholds: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The least score of the highest mIoU."""
    measured = [row for row in thresholds if row["miou"] is not None]
    return max(measured, key=lambda row: row["miou"]) if measured else None


def _parts(
    totals: LabelTotals, comparison: LabelComparison, precision: dict[int, tuple[float, float]]
) -> list[dict[str, Any]]:
    iou = _iou(comparison, comparison.chosen)
    human = comparison.matches.human_parts()
    return [
        {
            "name": name,
            "labels": int(totals.instances[part]),
            "human": human.get(part, 0),
            "AP": precision[part][0] if part in precision else None,
            "AP50": precision[part][1] if part in precision else None,
            "iou": None if np.isnan(iou[part]) else float(iou[part]),
        }
        for part, name in enumerate(comparison.vocabulary.parts, start=1)
    ]


def _objects(
    totals: LabelTotals, comparison: LabelComparison, precision: dict[int, tuple[float, float]]
) -> list[dict[str, Any]]:
    iou = _iou(comparison, comparison.chosen)
    compared = defaultdict(list)
    for image in comparison.images:
        compared[image.label].append(image)
    rows = []
    for label, name in enumerate(comparison.vocabulary.objects):
        images, labelled, errors = (
            int(counts[label]) for counts in (totals.images, totals.labelled, totals.errors)
        )
        if not images:
            continue
        parts = comparison.vocabulary.parts_of(label)
        measured = [precision[part] for part in parts if part in precision]
        rows.append(
            {
                "name": name,
                "images": images,
                "labelled": labelled,
                "empty": images - labelled - errors,
                "errors": errors,
                "compared": len(compared[label]),
                "AP": _mean(ap for ap, _ in measured),
                "AP50": _mean(ap50 for _, ap50 in measured),
                "miou": _mean(float(iou[part]) for part in parts if not np.isnan(iou[part])),
                "coverage": _mean(image.coverage for image in compared[label]),
                "recall": _mean(image.recall for image in compared[label]),
            }
        )
    return rows
