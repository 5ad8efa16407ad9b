import contextlib
import io

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from modules.coco_ap import CocoMaskAP


def square(x: int, y: int, side: int) -> Tensor:
    mask = torch.zeros(32, 32, dtype=torch.uint8)
    mask[y : y + side, x : x + side] = 1
    return mask


def stacked(masks: list[Tensor]) -> Tensor:
    return torch.stack(masks) if masks else torch.zeros(0, 32, 32, dtype=torch.uint8)


def scene() -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Random squares of four classes; detections are jittered, relabelled, missing or made up."""
    rng = np.random.default_rng(0)
    images = []
    for count in (3, 0, 5, 2, 6, 1):
        truth = [(int(rng.integers(1, 4)), *rng.integers(0, 20, 2), 10) for _ in range(count)]
        found = [
            (label, x + rng.integers(0, 3), y + rng.integers(0, 3), 10)
            for label, x, y, _ in truth
            if rng.random() < 0.8
        ]
        found += [(int(rng.integers(1, 5)), *rng.integers(0, 20, 2), 8) for _ in range(3)]
        images.append(
            (
                {
                    "labels": torch.tensor([t[0] for t in truth], dtype=torch.int64),
                    "masks": stacked([square(*t[1:]) for t in truth]),
                },
                {
                    "labels": torch.tensor([f[0] for f in found]),
                    "masks": stacked([square(*f[1:]) for f in found]).bool(),
                    "scores": torch.from_numpy(rng.random(len(found))),
                },
            )
        )
    return images


def by_pycocotools(images: list[tuple[dict[str, Tensor], dict[str, Tensor]]]) -> COCOeval:
    """COCO's own evaluation with its own defaults, all categories in one call."""
    truth, found = [], []
    for image_id, sides in enumerate(images, start=1):
        for entries, side in zip((truth, found), sides, strict=True):
            for i in range(len(side["labels"])):
                rle = coco_mask.encode(np.asfortranarray(side["masks"][i].numpy().astype("uint8")))
                entry = {
                    "id": len(entries) + 1,
                    "image_id": image_id,
                    "category_id": int(side["labels"][i]),
                    "segmentation": rle,
                    "area": int(side["masks"][i].sum()),
                    "iscrowd": 0,
                }
                if "scores" in side:
                    entry["score"] = float(side["scores"][i])
                entries.append(entry)
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": i + 1, "height": 32, "width": 32} for i in range(len(images))],
        "categories": [{"id": i} for i in range(1, 5)],
        "annotations": truth,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def test_equals_pycocotools_on_all_categories_at_once() -> None:
    images = scene()
    metric = CocoMaskAP(("plain", "none"))
    nothing = {
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, 32, 32),
        "scores": torch.zeros(0),
    }
    for index, (target, detections) in enumerate(images):
        metric.update(str(index), target, {"plain": detections, "none": nothing})
    result = metric.compute()
    expected = by_pycocotools(images).stats
    assert 0.1 < expected[0] < 0.9
    assert result["plain"] == pytest.approx({"AP": expected[0], "AP50": expected[1]}, abs=1e-12)
    assert result["none"] == {"AP": 0.0, "AP50": 0.0}


def test_hand_made_case() -> None:
    # Two squares of one class. The first is found exactly (score 0.9), the second with
    # IoU 80 / 120 = 2/3 (score 0.8): AP is 1 up to IoU 0.65 and 51 / 101 (recall 1/2) above.
    target = {"labels": torch.ones(2, dtype=torch.int64)}
    target["masks"] = torch.stack([square(0, 0, 10), square(15, 15, 10)])
    found = {"labels": torch.ones(2, dtype=torch.int64), "scores": torch.tensor([0.9, 0.8])}
    found["masks"] = torch.stack([square(0, 0, 10), square(17, 15, 10)]).bool()
    metric = CocoMaskAP(("",))
    metric.update("image", target, {"": found})
    result = metric.compute()[""]
    assert result["AP50"] == pytest.approx(1.0)
    assert result["AP"] == pytest.approx((4 * 1.0 + 6 * 51 / 101) / 10)


def test_no_truth_is_minus_one() -> None:
    metric = CocoMaskAP(("",))
    assert metric.compute() == {"": {"AP": -1.0, "AP50": -1.0}}
