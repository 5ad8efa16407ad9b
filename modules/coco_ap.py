"""COCO mask AP through pycocotools, gathered over processes."""

import contextlib
import io
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, distributed

Entry = dict[str, Any]
MAX_DETECTIONS = 100


class CocoMaskAP:
    """Mask average precision of one or more detectors on the same images.

    AP is the mean over IoU thresholds 0.50:0.05:0.95, 101 recall points and all categories that
    occur in the ground truth, at most 100 detections per image and category; AP50 has IoU 0.50
    only. Categories are evaluated one by one on the images they occur in, which gives COCOeval's
    numbers without its (images x categories) tables: PIN++ would have 33 million cells.

    Args:
        names: one name per detector.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self.images: dict[str, Entry] = {}

    def update(
        self, key: str, target: dict[str, Tensor], detections: dict[str, dict[str, Tensor]]
    ) -> None:
        """Adds one image; an image that is already there is replaced.

        Args:
            key: name of the image.
            target: `labels (N,)` and `masks (N, H, W)`.
            detections: for each detector name `labels (M,)`, `scores (M,)`, `masks (M, H, W)`.
        """
        self.images[key] = {
            "size": tuple(target["masks"].shape[-2:]),
            "truth": _entries(target),
            "detections": {name: _entries(detections[name]) for name in self.names},
        }

    def compute(self) -> dict[str, dict[str, float]]:
        """`{name: {"AP": ..., "AP50": ...}}` in [0, 1], equal on all processes; -1 without truth.

        All processes must call it.
        """
        if not (distributed.is_available() and distributed.is_initialized()):
            return {name: _average_precision(self.images, name) for name in self.names}
        rank, world_size = distributed.get_rank(), distributed.get_world_size()
        shards: list[Any] | None = [None] * world_size if rank == 0 else None
        distributed.gather_object(self.images, shards, dst=0)
        result: list[Any] = [None]
        if shards is not None:
            images = {key: image for shard in shards for key, image in shard.items()}
            result = [{name: _average_precision(images, name) for name in self.names}]
        distributed.broadcast_object_list(result, src=0)
        return result[0]


def _entries(found: dict[str, Tensor]) -> list[tuple[int, float, Entry]]:
    """(label, score, run lengths) of every mask."""
    masks = found["masks"].to(torch.uint8).cpu().numpy()
    scores = found.get("scores", torch.ones(len(masks))).tolist()
    runs = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0))) if len(masks) else []
    return list(zip(found["labels"].tolist(), scores, runs, strict=True))


def _average_precision(images: dict[str, Entry], name: str) -> dict[str, float]:
    truth: dict[int, list[Entry]] = defaultdict(list)
    found: dict[int, list[Entry]] = defaultdict(list)
    sizes = {}
    for image_id, key in enumerate(sorted(images), start=1):
        image = images[key]
        sizes[image_id] = image["size"]
        for entries, by_label in ((image["truth"], truth), (image["detections"][name], found)):
            for label, score, rle in entries:
                by_label[label].append(_annotation(image_id, label, score, rle))
    tables = [_precision(truth[label], found[label], sizes) for label in sorted(truth)]
    if not tables:
        return {"AP": -1.0, "AP50": -1.0}
    precision = np.stack(tables)
    return {"AP": float(precision.mean()), "AP50": float(precision[:, 0].mean())}


def _annotation(image_id: int, label: int, score: float, rle: Entry) -> Entry:
    return {
        "image_id": image_id,
        "category_id": label,
        "score": score,
        "segmentation": rle,
        "area": float(coco_mask.area(rle)),
        "iscrowd": 0,
    }


def _precision(
    truth: list[Entry], found: list[Entry], sizes: dict[int, tuple[int, int]]
) -> np.ndarray:
    """Precision `(10 IoU thresholds, 101 recall points)` of one category."""
    image_ids = sorted({entry["image_id"] for entry in truth + found})
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_coco(truth, image_ids, sizes), _coco(found, image_ids, sizes))
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][:, :, 0, 0, 0]


def _coco(entries: list[Entry], image_ids: list[int], sizes: dict[int, tuple[int, int]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i, "height": sizes[i][0], "width": sizes[i][1]} for i in image_ids],
        "annotations": [entry | {"id": i} for i, entry in enumerate(entries, start=1)],
        "categories": [{"id": i} for i in sorted({entry["category_id"] for entry in entries})],
    }
    coco.createIndex()
    return coco
