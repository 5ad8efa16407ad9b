import contextlib
import io
import os
import socket
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, distributed, multiprocessing

from modules.metrics.coco_ap import AveragePrecision, CocoAP, MaskMetrics
from modules.metrics.coco_matching import FOUND, MAX_DETECTIONS, Instances, match

SIDE = 160
Scene = list[tuple[dict[str, Tensor], dict[str, Tensor]]]


def rectangle(x: int, y: int, width: int, height: int) -> Tensor:
    mask = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    mask[y : y + height, x : x + width] = 1
    return mask


def stacked(masks: list[Tensor]) -> Tensor:
    return torch.stack(masks) if masks else torch.zeros(0, SIDE, SIDE, dtype=torch.uint8)


def scene(seed: int, tied: bool = False) -> Scene:
    """Rectangles of small, medium and large area; detections are jittered or made up."""
    rng = np.random.default_rng(seed)
    images = []
    for count in (3, 0, 5, 2, 9, 1):
        truth = [
            (
                int(rng.integers(1, 4)),
                *rng.integers(0, 30, 2),
                *rng.choice([12, 31, 32, 100, 120], 2),
            )
            for _ in range(count)
        ]
        found = [
            (label, x + rng.integers(0, 4), y + rng.integers(0, 4), *(rng.integers(0, 4, 2) + s))
            for label, x, y, *s in truth
            for _ in range(2)
            if rng.random() < 0.7
        ]
        found += [
            (int(rng.integers(1, 6)), *rng.integers(0, 40, 2), *rng.choice([10, 40, 99], 2))
            for _ in range(4)
        ]
        scores = rng.choice([0.3, 0.6], len(found)) if tied else rng.random(len(found))
        images.append(
            (
                {
                    "labels": torch.tensor([t[0] for t in truth], dtype=torch.int64),
                    "masks": stacked([rectangle(*t[1:]) for t in truth]),
                },
                {
                    "labels": torch.tensor([f[0] for f in found]),
                    "masks": stacked([rectangle(*f[1:]) for f in found]).bool(),
                    "scores": torch.from_numpy(scores),
                },
            )
        )
    return images


def by_pycocotools(images: Scene) -> COCOeval:
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
        "images": [{"id": i + 1, "height": SIDE, "width": SIDE} for i in range(len(images))],
        "categories": [{"id": i} for i in range(1, 6)],
        "annotations": truth,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def measured(images: Scene, names: tuple[str, ...] = ("",)) -> dict[str, MaskMetrics]:
    metric = CocoAP(names)
    for index, (target, detections) in enumerate(images):
        metric.update(str(index), target, dict.fromkeys(names, detections))
    return metric.compute()


@pytest.mark.parametrize(("seed", "tied"), [(0, False), (1, False), (2, True), (3, True)])
def test_equals_pycocotools_on_all_categories_at_once(seed: int, tied: bool) -> None:
    images = scene(seed, tied)
    result = measured(images)[""]
    expected = by_pycocotools(images)
    assert 0.1 < expected.stats[0] < 0.9
    figures = list(asdict(result.summary()).values())
    assert figures == pytest.approx(expected.stats[:6].tolist(), abs=1e-12)
    # every single category, with its areas
    precision = expected.eval["precision"][..., -1]  # (T, R, K, A), 100 detections
    for label, one in result.categories.items():
        by_area = [precision[:, :, label - 1, area].mean() for area in range(4)]
        assert [one.AP, one.APs, one.APm, one.APl] == pytest.approx(by_area, abs=1e-12)
        assert pytest.approx(precision[5, :, label - 1, 0].mean(), abs=1e-12) == one.AP75
    shown = [set(target["labels"].tolist()) for target, _ in images]
    assert result.images == {label: sum(label in s for s in shown) for label in (1, 2, 3)}
    assert sum(result.masks.values()) == 20


def test_at_most_100_detections_of_a_category_but_more_in_all() -> None:
    rng = np.random.default_rng(0)
    count = 130
    found = {
        "labels": torch.tensor([1] * count + [2] * count),
        "scores": torch.from_numpy(rng.random(2 * count)).float(),
        "masks": stacked([rectangle(*rng.integers(0, 40, 2), 40, 40) for _ in range(2 * count)]),
    }
    target = {"labels": torch.tensor([1, 1]), "masks": found["masks"][:2]}
    sides = (Instances.of_tensors(side, "segm") for side in (target, found))
    table = match(*sides)
    assert np.unique(table["label"], return_counts=True)[1].tolist() == [MAX_DETECTIONS] * 2
    assert table.dtype == FOUND
    assert (np.diff(table["score"]) <= 0).all()
    images = [(target, found)]
    summary = measured(images)[""].summary()
    assert pytest.approx(by_pycocotools(images).stats[0], abs=1e-12) == summary.AP


def test_hand_made_case() -> None:
    # Two squares of one class. The first is found exactly (score 0.9), the second with
    # IoU 80 / 120 = 2/3 (score 0.8): AP is 1 up to IoU 0.65 and 51 / 101 (recall 1/2) above.
    target = {"labels": torch.ones(2, dtype=torch.int64)}
    target["masks"] = torch.stack([rectangle(0, 0, 10, 10), rectangle(15, 15, 10, 10)])
    found = {"labels": torch.ones(2, dtype=torch.int64), "scores": torch.tensor([0.9, 0.8])}
    found["masks"] = torch.stack([rectangle(0, 0, 10, 10), rectangle(17, 15, 10, 10)]).bool()
    summary = measured([(target, found)])[""].summary()
    assert pytest.approx(1.0) == summary.AP50
    assert pytest.approx(51 / 101) == summary.AP75
    assert summary.AP == summary.APs == pytest.approx((4 * 1.0 + 6 * 51 / 101) / 10)
    assert summary.APm == summary.APl == -1


def test_nothing_found_is_zero_and_no_truth_is_minus_one() -> None:
    nothing = {"labels": torch.zeros(0).long(), "masks": stacked([]), "scores": torch.zeros(0)}
    images = [(target, nothing) for target, _ in scene(0)]
    assert measured(images)[""].summary() == AveragePrecision(0, 0, 0, 0, 0, 0)
    images = [({"labels": nothing["labels"], "masks": stacked([])}, f) for _, f in scene(0)]
    assert measured(images)[""].summary() == AveragePrecision()
    assert CocoAP(("",)).compute()[""].summary() == AveragePrecision()


def test_images_come_in_any_order_and_once() -> None:
    images = scene(4, tied=True)
    metric = CocoAP(("",))
    for index in (5, 1, 3, 0, 4, 2, 3):
        metric.update(str(index), images[index][0], {"": images[index][1]})
    assert metric.compute() == measured(images)


def _rank(rank: int, world_size: int, port: int, folder: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=world_size)
    metric = CocoAP(("", "again"))
    images = scene(5, tied=True)
    for index in {*range(rank, len(images), world_size), 0}:  # image 0 on every rank
        metric.update(str(index), images[index][0], dict.fromkeys(metric.names, images[index][1]))
    (folder / f"{rank}.txt").write_text(repr(metric.compute()))
    distributed.destroy_process_group()


def test_every_rank_has_the_values_of_one_process(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_rank, (3, port, tmp_path), nprocs=3)
    expected = repr(measured(scene(5, tied=True), ("", "again")))
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(3)] == [expected] * 3
