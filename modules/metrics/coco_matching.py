"""Which detections of one image meet a true instance, by COCO's rules, in a few bytes each.

COCOeval keeps every mask until the end and makes a table of (images x categories x areas). The
matching of an image needs no other image, so it is done at once, and what average precision needs
of a detection fits in 28 bytes: PartImageNet++'s held-out tenth is 10,000 images with up to 300
detections of 3,308 categories.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval
from torch import Tensor

IoUType = Literal["segm", "bbox"]

MAX_DETECTIONS = 100
"""Of one image and category."""
AREAS = {"": (0.0, 1e10), "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}
"""COCO's area ranges in pixels, both ends included, by the letter at the end of `APs`."""
NUM_THRESHOLDS = 10  # IoU 0.50:0.05:0.95

# One bit of `matched` and `ignored` for each area range and IoU threshold, thresholds first.
FOUND = np.dtype([("label", "i4"), ("score", "f8"), ("matched", "u8"), ("ignored", "u8")])
# One bit of `counted` for each area range.
TRUTH = np.dtype([("label", "i4"), ("counted", "u1")])


@dataclass(frozen=True)
class Instances:
    """Objects of one image, true or detected, as pycocotools takes them.

    Attributes:
        labels: category of each `(N,)`.
        areas: pixels of each, float64 `(N,)`.
        shapes: gives the chosen ones as run lengths, or as boxes x, y, width, height.
        scores: of detections, float64 `(N,)`; not looked at in the truth.
        crowd: of the truth, bool `(N,)`: a crowd is neither to be detected nor a false alarm.
    """

    labels: np.ndarray
    areas: np.ndarray
    shapes: Callable[[np.ndarray], list[Any]]
    scores: np.ndarray
    crowd: np.ndarray

    @classmethod
    def of_tensors(cls, content: dict[str, Tensor], iou_type: IoUType) -> "Instances":
        """Instances of one image from tensors on any device.

        Args:
            content: `labels (N,)`, and `masks (N, H, W)` or `boxes (N, 4)` as x1, y1, x2, y2;
                detections have `scores (N,)`, the truth may have `iscrowd (N,)` in {0, 1}.
            iou_type: `segm` takes the masks, `bbox` the boxes.
        """
        labels = content["labels"].cpu().numpy()
        plain = {"scores": np.ones(len(labels)), "iscrowd": np.zeros(len(labels))}
        scores, crowd = (
            content[name].cpu().numpy() if name in content else default
            for name, default in plain.items()
        )
        areas, shapes = (_of_masks if iou_type == "segm" else _of_boxes)(content)
        return cls(labels, areas, shapes, scores.astype(np.float64), crowd.astype(bool))

    def entries(self, chosen: np.ndarray, iou_type: IoUType) -> list[dict[str, Any]]:
        """COCO annotations of the chosen ones; ids start at 1, as 0 means `not matched`."""
        key = "segmentation" if iou_type == "segm" else "bbox"
        figures = (values[chosen] for values in (self.areas, self.scores, self.crowd))
        columns = zip(self.shapes(chosen), *figures, strict=True)
        return [
            {"id": i, key: shape, "area": a, "score": s, "ignore": int(c), "iscrowd": int(c)}
            for i, (shape, a, s, c) in enumerate(columns, start=1)
        ]


def outside(areas: np.ndarray) -> np.ndarray:
    """Whether areas `(N,)` in pixels lie outside each of the `AREAS`: bool `(4, N)`."""
    low, high = np.array(list(AREAS.values())).T[:, :, None]
    return (areas < low) | (areas > high)


def truth_table(truth: Instances) -> np.ndarray:
    """Ground truth of an image as `TRUTH` records `(N,)`."""
    table = np.zeros(len(truth.labels), TRUTH)
    table["label"] = truth.labels
    bits = (1 << np.arange(len(AREAS)))[:, None]
    counted = ~outside(truth.areas) & ~truth.crowd
    table["counted"] = (counted * bits).sum(axis=0)
    return table


def match(truth: Instances, predictions: Instances, iou_type: IoUType = "segm") -> np.ndarray:
    """Matches the detections of an image to its ground truth.

    COCOeval's own matching is run for the categories that the image shows; a detection of any
    other category matches nothing, and is ignored where its area is out of range.

    Returns:
        `FOUND` records by falling score, at most `MAX_DETECTIONS` of a category.
    """
    order = np.argsort(-predictions.scores, kind="stable")
    labels = predictions.labels[order]
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        if count > MAX_DETECTIONS:
            surplus = np.flatnonzero(labels == label)[MAX_DETECTIONS:]
            order, labels = np.delete(order, surplus), np.delete(labels, surplus)
    table = np.zeros(len(order), FOUND)
    table["label"], table["score"] = labels, predictions.scores[order]
    matched = np.zeros((len(AREAS), NUM_THRESHOLDS, len(order)), bool)
    ignored = np.repeat(outside(predictions.areas[order])[:, None], NUM_THRESHOLDS, axis=1)
    for label in np.unique(truth.labels):
        own, shown = np.flatnonzero(labels == label), np.flatnonzero(truth.labels == label)
        if len(own):
            matched[:, :, own], ignored[:, :, own] = _by_cocoeval(
                truth.entries(shown, iou_type), predictions.entries(order[own], iou_type), iou_type
            )
    bits = np.uint64(1) << np.arange(len(AREAS) * NUM_THRESHOLDS, dtype=np.uint64)[:, None]
    for name, flags in (("matched", matched), ("ignored", ignored)):
        table[name] = (flags.reshape(len(bits), -1) * bits).sum(axis=0, dtype=np.uint64)
    return table


def unpack(packed: np.ndarray) -> np.ndarray:
    """Bits of `matched` or `ignored` `(M,)` as bool `(4 area ranges, 10 thresholds, M)`."""
    bits = np.arange(len(AREAS) * NUM_THRESHOLDS, dtype=np.uint64)[:, None]
    return ((packed >> bits) & np.uint64(1)).astype(bool).reshape(len(AREAS), NUM_THRESHOLDS, -1)


def _of_masks(content: dict[str, Tensor]) -> tuple[np.ndarray, Callable[[np.ndarray], list[Any]]]:
    masks = content["masks"].cpu().numpy()
    masks = masks if masks.dtype == bool else masks != 0

    def shapes(chosen: np.ndarray) -> list[Any]:
        dense = masks[chosen].view(np.uint8).transpose(1, 2, 0)
        return coco_mask.encode(np.asfortranarray(dense))

    return np.array([np.count_nonzero(mask) for mask in masks], np.float64), shapes


def _of_boxes(content: dict[str, Tensor]) -> tuple[np.ndarray, Callable[[np.ndarray], list[Any]]]:
    corners = content["boxes"].cpu().numpy().astype(np.float64)
    sides = corners[:, 2:] - corners[:, :2]
    boxes = np.concatenate([corners[:, :2], sides], axis=1)
    return sides.prod(axis=1), lambda chosen: boxes[chosen].tolist()


def _by_cocoeval(
    truth: list[dict[str, Any]], predictions: list[dict[str, Any]], iou_type: IoUType
) -> tuple[np.ndarray, np.ndarray]:
    """Which detections match and which are ignored, each bool `(areas, thresholds, M)`."""
    # Its `evaluate` prints, which would tear the progress bar of a validation; these do not.
    evaluation = COCOeval(iouType=iou_type)
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation._gts, evaluation._dts = {(0, 0): truth}, {(0, 0): predictions}
    evaluation.ious = {(0, 0): evaluation.computeIoU(0, 0)}
    results = [evaluation.evaluateImg(0, 0, area, MAX_DETECTIONS) for area in AREAS.values()]
    return (
        np.stack([result["dtMatches"] > 0 for result in results]),
        np.stack([result["dtIgnore"].astype(bool) for result in results]),
    )
