"""Which detections of one image meet a ground truth mask, by COCO's rules, in a few bytes each.

COCOeval keeps every mask until the end and makes a table of (images x categories x areas). The
matching of an image needs no other image, so it is done at once, and what average precision needs
of a detection fits in 28 bytes: PartImageNet++'s held-out tenth is 10,000 images with up to 300
detections of 3,308 categories.
"""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval
from torch import Tensor

MAX_DETECTIONS = 100
"""Of one image and category."""
AREAS = {"": (0.0, 1e10), "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}
"""COCO's area ranges in pixels, both ends included, by the letter at the end of `APs`."""
NUM_THRESHOLDS = 10  # IoU 0.50:0.05:0.95

# One bit of `matched` and `ignored` for each area range and IoU threshold, thresholds first.
FOUND = np.dtype([("label", "i4"), ("score", "f8"), ("matched", "u8"), ("ignored", "u8")])
# One bit of `counted` for each area range.
TRUTH = np.dtype([("label", "i4"), ("counted", "u1")])

Masks = dict[str, Tensor]


def outside(areas: np.ndarray) -> np.ndarray:
    """Whether areas `(N,)` in pixels lie outside each of the `AREAS`: bool `(4, N)`."""
    low, high = np.array(list(AREAS.values())).T[:, :, None]
    return (areas < low) | (areas > high)


def truth_table(target: Masks) -> np.ndarray:
    """Ground truth of an image as `TRUTH` records `(N,)`.

    Args:
        target: `labels (N,)` and `masks (N, H, W)`.
    """
    table = np.zeros(len(target["labels"]), TRUTH)
    table["label"] = target["labels"].cpu().numpy()
    bits = (1 << np.arange(len(AREAS)))[:, None]
    table["counted"] = (~outside(_areas(_dense(target["masks"]))) * bits).sum(axis=0)
    return table


def match(target: Masks, found: Masks) -> np.ndarray:
    """Matches the detections of an image to its ground truth.

    COCOeval's own matching is run for the categories that the image shows; a detection of any
    other category matches nothing, and is ignored where its area is out of range.

    Args:
        target: `labels (N,)` and `masks (N, H, W)`.
        found: `labels (M,)`, `scores (M,)` and `masks (M, H, W)`.

    Returns:
        `FOUND` records by falling score, at most `MAX_DETECTIONS` of a category.
    """
    scores = found["scores"].cpu().double().numpy()
    order = np.argsort(-scores, kind="stable")
    labels = found["labels"].cpu().numpy()[order]
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        if count > MAX_DETECTIONS:
            surplus = np.flatnonzero(labels == label)[MAX_DETECTIONS:]
            order, labels = np.delete(order, surplus), np.delete(labels, surplus)
    table = np.zeros(len(order), FOUND)
    table["label"], table["score"] = labels, scores[order]
    masks, truth_masks = _dense(found["masks"]), _dense(target["masks"])
    areas, truth_areas = _areas(masks), _areas(truth_masks)
    matched = np.zeros((len(AREAS), NUM_THRESHOLDS, len(order)), bool)
    ignored = np.repeat(outside(areas[order])[:, None], NUM_THRESHOLDS, axis=1)
    truth_labels = target["labels"].cpu().numpy()
    for label in np.unique(truth_labels):
        own, shown = np.flatnonzero(labels == label), np.flatnonzero(truth_labels == label)
        if len(own):
            matched[:, :, own], ignored[:, :, own] = _by_cocoeval(
                _entries(truth_masks, truth_areas, np.ones(len(truth_areas)), shown),
                _entries(masks, areas, scores, order[own]),
            )
    bits = np.uint64(1) << np.arange(len(AREAS) * NUM_THRESHOLDS, dtype=np.uint64)[:, None]
    for name, flags in (("matched", matched), ("ignored", ignored)):
        table[name] = (flags.reshape(len(bits), -1) * bits).sum(axis=0, dtype=np.uint64)
    return table


def unpack(packed: np.ndarray) -> np.ndarray:
    """Bits of `matched` or `ignored` `(M,)` as bool `(4 area ranges, 10 thresholds, M)`."""
    bits = np.arange(len(AREAS) * NUM_THRESHOLDS, dtype=np.uint64)[:, None]
    return ((packed >> bits) & np.uint64(1)).astype(bool).reshape(len(AREAS), NUM_THRESHOLDS, -1)


def _dense(masks: Tensor) -> np.ndarray:
    array = masks.cpu().numpy()
    return array if array.dtype == bool else array != 0


def _areas(masks: np.ndarray) -> np.ndarray:
    """Pixels of each mask, float64 `(N,)`."""
    return np.array([np.count_nonzero(mask) for mask in masks], np.float64)


def _entries(
    masks: np.ndarray, areas: np.ndarray, scores: np.ndarray, chosen: np.ndarray
) -> list[dict[str, Any]]:
    """COCO annotations of the chosen masks; ids start at 1, as 0 means `not matched`."""
    dense = masks[chosen].view(np.uint8).transpose(1, 2, 0)
    columns = zip(
        coco_mask.encode(np.asfortranarray(dense)), areas[chosen], scores[chosen], strict=True
    )
    return [
        {"id": i, "segmentation": rle, "area": area, "score": score, "ignore": 0, "iscrowd": 0}
        for i, (rle, area, score) in enumerate(columns, start=1)
    ]


def _by_cocoeval(
    truth: list[dict[str, Any]], found: list[dict[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """Which detections match and which are ignored, each bool `(areas, thresholds, M)`."""
    # Its `evaluate` prints, which would tear the progress bar of a validation; these do not.
    evaluation = COCOeval(iouType="segm")
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation._gts, evaluation._dts = {(0, 0): truth}, {(0, 0): found}
    evaluation.ious = {(0, 0): evaluation.computeIoU(0, 0)}
    results = [evaluation.evaluateImg(0, 0, area, MAX_DETECTIONS) for area in AREAS.values()]
    return (
        np.stack([result["dtMatches"] > 0 for result in results]),
        np.stack([result["dtIgnore"].astype(bool) for result in results]),
    )
