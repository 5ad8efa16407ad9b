import numpy as np
import pytest

from pipeline.validation.composite_iou import CompositeIoU, mean_iou


def test_pixels_are_pooled_over_images() -> None:
    metric = CompositeIoU(("", "exact"), 4)
    truth = np.array([[1, 1, 0], [1, 2, 2]])
    guess = np.array([[1, 0, 1], [3, 2, 1]])
    metric.update("a", truth, {"": guess, "exact": truth})
    metric.update("b", truth, {"": truth, "exact": truth})
    metric.update("a", truth, {"": guess, "exact": truth})  # replaced, not counted twice
    result = metric.compute()
    # part 1: 1 + 3 of 5 + 3 pixels; part 2: 1 + 2 of 2 + 2; part 3 is never true
    assert result[""] == pytest.approx({1: 4 / 8, 2: 3 / 4})
    assert mean_iou(result[""]) == pytest.approx(0.625)
    assert result["exact"] == {1: 1.0, 2: 1.0}


def test_iou_of_nothing_is_minus_one() -> None:
    metric = CompositeIoU(("",), 4)
    assert mean_iou(metric.compute()[""]) == -1
    metric.update("a", np.zeros((4, 4), int), {"": np.ones((4, 4), int)})
    assert metric.compute() == {"": {}}
