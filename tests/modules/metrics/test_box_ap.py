import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from modules.metrics.box_ap import BoxAP


def truth(*boxes: list[float], crowd: tuple[int, ...] = ()) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes).float().reshape(-1, 4),
        "labels": torch.ones(len(boxes), dtype=torch.int64),
        "iscrowd": torch.tensor([int(i in crowd) for i in range(len(boxes))]),
    }


def found(*boxes: list[float]) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes).float().reshape(-1, 4),
        "labels": torch.ones(len(boxes), dtype=torch.int64),
        "scores": torch.linspace(0.9, 0.5, len(boxes)),
    }


def test_a_box_counts_up_to_its_overlap() -> None:
    metric = BoxAP()
    metric.update("a", truth([0, 0, 10, 10]), found([0, 0, 10, 6.2]))  # IoU 0.62
    values = metric.compute()
    assert values["AP50"] == pytest.approx(1)
    assert values["AP"] == pytest.approx(0.3)  # at 0.50, 0.55 and 0.60
    assert values["images"] == 1


def test_crowds_are_ignored_and_images_without_boxes_count_false_alarms() -> None:
    metric = BoxAP()
    crowd, single = [0.0, 0, 40, 40], [50.0, 50, 60, 60]
    metric.update("a", truth(crowd, single, crowd=(0,)), found([0, 0, 40, 40], single))
    assert metric.compute()["AP"] == pytest.approx(1)
    metric.update("b", truth(), found([0, 0, 9, 9]))
    assert metric.compute()["AP"] == pytest.approx(0.5)
    metric.update("b", truth(), found())  # the same image again replaces it
    assert metric.compute() == pytest.approx({"AP": 1, "AP50": 1, "images": 2})


def test_nothing_to_find_is_minus_one() -> None:
    metric = BoxAP()
    assert metric.compute()["AP"] == -1
    metric.update("a", truth(), found())
    assert metric.compute()["AP50"] == -1


def test_equals_torchmetrics() -> None:
    rng, metric, oracle = np.random.default_rng(0), BoxAP(), MeanAveragePrecision()
    for key in "abcdefgh":
        corners = torch.from_numpy(rng.uniform(0, 60, (6, 2))).float()
        boxes = torch.cat([corners, corners + torch.from_numpy(rng.uniform(5, 120, (6, 2)))], 1)
        labels = torch.from_numpy(rng.integers(0, 3, 6))
        target = {"boxes": boxes.float(), "labels": labels, "iscrowd": (labels == 1).long()}
        moved = boxes + torch.from_numpy(rng.normal(0, 4, (6, 4)))
        scores = torch.from_numpy(rng.permutation(6) / 7).float()
        results = {"boxes": moved.float(), "labels": labels.roll(1), "scores": scores}
        results["labels"][:4] = labels[:4]
        metric.update(key, target, results)
        oracle.update([results], [target])
    values, expected = metric.compute(), oracle.compute()
    assert 0.1 < values["AP"] < 0.9
    assert values["AP"] == pytest.approx(float(expected["map"]), abs=1e-6)
    assert values["AP50"] == pytest.approx(float(expected["map_50"]), abs=1e-6)
