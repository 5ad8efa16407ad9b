"""COCO AP of masks and boxes by pycocotools, gathered over processes."""

import contextlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields

import numpy as np
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from modules.metrics.all_ranks import from_all_ranks
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
class AveragePrecision:
    """COCO's average precisions in [0, 1]; -1 where there is no ground truth.

    Attributes:
        AP: mean over IoU 0.50:0.05:0.95 and 101 recall points.
        AP50, AP75: at IoU 0.50 and 0.75.
        APs, APm, APl: of instances under 32 x 32, up to 96 x 96 and above, in pixels.
    """

    AP: float = -1.0
    AP50: float = -1.0
    AP75: float = -1.0
    APs: float = -1.0
    APm: float = -1.0
    APl: float = -1.0


@dataclass(frozen=True)
class MaskMetrics:
    """Average precision of one detector.

    Attributes:
        categories: of each category that the ground truth shows, by label.
        images: images that show the category, by label.
        masks: true instances of the category, by label.
        num_images: images in all.
    """

    categories: dict[int, AveragePrecision]
    images: dict[int, int]
    masks: dict[int, int]
    num_images: int

    def summary(self) -> AveragePrecision:
        """COCO's figures: means over the categories that have ground truth (of the size)."""
        return mean_precision(list(self.categories.values()))


def mean_precision(precisions: list[AveragePrecision]) -> AveragePrecision:
    """Mean over categories of each figure, without those of -1; -1 where nothing is left."""
    table = np.array([astuple(one) for one in precisions]).reshape(-1, len(FIGURES))
    known = [column[column >= 0] for column in table.T]
    return AveragePrecision(*(float(column.mean()) if len(column) else -1.0 for column in known))


FIGURES = tuple(field.name for field in fields(AveragePrecision))

Record = tuple[np.ndarray, dict[str, np.ndarray]]


class CocoAP:
    """Average precision of one or more detectors on the same images.

    COCO's definition: categories that occur in the ground truth, at most 100 detections per image
    and category. An image is matched as it comes (pycocotools); 28 bytes are kept of each
    detection and no mask, so that 3,308 categories on 10,000 images fit in memory.

    Args:
        names: one name per detector.
        iou_type: `segm` compares masks, `bbox` boxes.
    """

    def __init__(self, names: tuple[str, ...], iou_type: IoUType = "segm") -> None:
        self.names = names
        self.iou_type: IoUType = iou_type
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self.images: dict[str, Record] = {}

    def update(
        self, key: str, target: dict[str, Tensor], detections: dict[str, dict[str, Tensor]]
    ) -> None:
        """Adds one image; an image that is already there is replaced.

        Args:
            key: name of the image.
            target: `labels (N,)`, and `masks (N, H, W)` or `boxes (N, 4)` as x1, y1, x2, y2 with
                `iscrowd (N,)` where there are crowds.
            detections: for each detector name `labels (M,)`, `scores (M,)`, and `masks (M, H, W)`
                or `boxes (M, 4)`.
        """
        found = {n: Instances.of_tensors(detections[n], self.iou_type) for n in self.names}
        self.add(key, Instances.of_tensors(target, self.iou_type), found)

    def add(self, key: str, truth: Instances, detections: Mapping[str, Instances]) -> None:
        """The same for instances that are no tensors."""
        predictions = {name: match(truth, detections[name], self.iou_type) for name in self.names}
        self.images[key] = (truth_table(truth), predictions)

    def compute(self) -> dict[str, MaskMetrics]:
        """Metrics by detector name, equal on all processes and for any number of them.

        All processes must call it.
        """
        return from_all_ranks(self.images, self._combine)

    def _combine(self, shards: list[dict[str, Record]]) -> dict[str, MaskMetrics]:
        merged = {key: record for shard in shards for key, record in shard.items()}
        records = [merged[key] for key in sorted(merged)]  # equal scores keep this order
        truth = _by_label([counted for counted, _ in records], TRUTH)
        masks = {label: len(rows) for label, rows in truth.items()}
        shown = _by_label([_one_of_each(counted) for counted, _ in records], TRUTH)
        images = {label: len(rows) for label, rows in shown.items()}
        result = {}
        for name in self.names:
            predictions = [by_name[name] for _, by_name in records]
            categories = precision_by_label([counted for counted, _ in records], predictions)
            result[name] = MaskMetrics(categories, images, masks, len(records))
        return result


def precision_by_label(
    truths: Iterable[np.ndarray], predictions: Iterable[np.ndarray]
) -> dict[int, AveragePrecision]:
    """Average precision of each category that the ground truth shows, by label.

    Args:
        truths: what `truth_table` gives, of each image.
        predictions: what `match` gives, of each image; equal scores keep this order.
    """
    detections, nothing = _by_label(predictions, FOUND), np.zeros(0, FOUND)
    with contextlib.redirect_stdout(io.StringIO()):  # COCOeval prints
        return {
            label: _precision(rows["counted"], detections.get(label, nothing))
            for label, rows in _by_label(truths, TRUTH).items()
        }


def _one_of_each(table: np.ndarray) -> np.ndarray:
    """The first row of each label."""
    return table[np.unique(table["label"], return_index=True)[1]]


def _by_label(tables: Iterable[np.ndarray], dtype: np.dtype) -> dict[int, np.ndarray]:
    """Rows of all tables, in their order, by label."""
    rows = np.concatenate([np.zeros(0, dtype), *tables])
    rows = rows[np.argsort(rows["label"], kind="stable")]
    labels, starts = np.unique(rows["label"], return_index=True)
    return dict(zip(labels.tolist(), np.split(rows, starts[1:]), strict=False))


def _precision(counted: np.ndarray, predictions: np.ndarray) -> AveragePrecision:
    """Average precision of one category from `TRUTH.counted (N,)` and `FOUND` records `(M,)`."""
    evaluation = COCOeval(iouType="segm")
    # All images at once stand for one: each has at most MAX_DETECTIONS of the category already.
    evaluation.params.catIds, evaluation.params.imgIds = [0], [0]
    evaluation.params.maxDets = [len(predictions)]
    evaluation.evalImgs = [
        {
            "dtScores": predictions["score"],
            "dtMatches": matched,
            "dtIgnore": ignored,
            "gtIgnore": ~(counted >> place & 1).astype(bool),
        }
        for place, (matched, ignored) in enumerate(
            zip(unpack(predictions["matched"]), unpack(predictions["ignored"]), strict=True)
        )
    ]
    evaluation._paramsEval = evaluation.params
    evaluation.accumulate()
    # (thresholds, recalls, area ranges), -1 where there is nothing to find
    every, *sizes = np.moveaxis(evaluation.eval["precision"][:, :, 0, :, 0], -1, 0)
    means = (float(table.mean()) for table in (every, every[0], every[5], *sizes))
    return AveragePrecision(*means)
