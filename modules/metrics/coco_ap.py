"""COCO mask AP with pycocotools' matching, gathered over processes."""

from dataclasses import astuple, dataclass, fields

import numpy as np
from torch import Tensor

from modules.metrics.all_ranks import from_all_ranks
from modules.metrics.coco_matching import AREAS, FOUND, TRUTH, match, truth_table, unpack

RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's average precisions in [0, 1]; -1 where there is no ground truth.

    Attributes:
        AP: mean over IoU 0.50:0.05:0.95 and 101 recall points.
        AP50, AP75: at IoU 0.50 and 0.75.
        APs, APm, APl: of masks under 32 x 32, up to 96 x 96 and above, in pixels.
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
        masks: ground truth masks of the category, by label.
    """

    categories: dict[int, AveragePrecision]
    images: dict[int, int]
    masks: dict[int, int]

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


class CocoMaskAP:
    """Mask average precision of one or more detectors on the same images.

    COCO's definition: categories that occur in the ground truth, at most 100 detections per image
    and category. An image is matched as it comes (pycocotools); 28 bytes are kept of each
    detection and no mask, so that 3,308 categories on 10,000 images fit in memory.

    Args:
        names: one name per detector.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
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
            target: `labels (N,)` and `masks (N, H, W)`.
            detections: for each detector name `labels (M,)`, `scores (M,)`, `masks (M, H, W)`.
        """
        found = {name: match(target, detections[name]) for name in self.names}
        self.images[key] = (truth_table(target), found)

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
            found = _by_label([by_name[name] for _, by_name in records], FOUND)
            nothing = np.zeros(0, FOUND)
            categories = {
                label: _precision(rows["counted"], found.get(label, nothing))
                for label, rows in truth.items()
            }
            result[name] = MaskMetrics(categories, images, masks)
        return result


def _one_of_each(table: np.ndarray) -> np.ndarray:
    """The first row of each label."""
    return table[np.unique(table["label"], return_index=True)[1]]


def _by_label(tables: list[np.ndarray], dtype: np.dtype) -> dict[int, np.ndarray]:
    """Rows of all tables, in their order, by label."""
    rows = np.concatenate([np.zeros(0, dtype), *tables])
    rows = rows[np.argsort(rows["label"], kind="stable")]
    labels, starts = np.unique(rows["label"], return_index=True)
    return dict(zip(labels.tolist(), np.split(rows, starts[1:]), strict=False))


def _precision(counted: np.ndarray, found: np.ndarray) -> AveragePrecision:
    """Average precision of one category from `TRUTH.counted (N,)` and `FOUND` records `(M,)`."""
    found = found[np.argsort(-found["score"], kind="stable")]
    matched, ignored = unpack(found["matched"]), unpack(found["ignored"])
    tables = []  # precision (10, 101) for each area range
    for place in range(len(AREAS)):
        positives = np.count_nonzero(counted >> place & 1)
        if not positives:
            tables.append(np.full((1, 1), -1.0))
            continue
        hits = np.cumsum(matched[place] & ~ignored[place], axis=1)
        misses = np.cumsum(~matched[place] & ~ignored[place], axis=1)
        precision = hits / (hits + misses + np.spacing(1))
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        # beyond the greatest recall precision is 0
        envelope = np.pad(envelope, ((0, 0), (0, 1)))
        places = np.stack([np.searchsorted(row / positives, RECALLS, "left") for row in hits])
        tables.append(np.take_along_axis(envelope, places, axis=1))
    every, *sizes = tables
    return AveragePrecision(
        float(every.mean()),
        float(every[0].mean()),
        float(every[5].mean()),
        *(float(table.mean()) for table in sizes),
    )
