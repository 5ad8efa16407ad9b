import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from modules.losses.federated import compared_classes, federated_loss


def dense(logits: Tensor, labels: Tensor, compared: set[int]) -> float:
    """Every region against every compared class, one logit at a time."""
    total = 0.0
    for region, label in zip(logits.double().tolist(), labels.tolist(), strict=True):
        for c in compared:
            probability = 1 / (1 + torch.tensor(-region[c]).double().exp())
            total -= float(torch.log(probability if c == label else 1 - probability))
    return total / len(labels)


def test_equals_the_dense_loss_when_all_classes_are_compared() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(9, 7), torch.tensor([0, 3, 3, 0, 5, 1, 0, 6, 2])
    loss = federated_loss(logits, labels, torch.ones(7), num_classes=50)
    assert loss.item() == pytest.approx(dense(logits, labels, set(range(1, 7))), rel=1e-5)
    target = F.one_hot(labels, 7)[:, 1:].float()
    whole = F.binary_cross_entropy_with_logits(logits[:, 1:], target, reduction="sum") / 9
    torch.testing.assert_close(loss, whole)


def test_equals_the_dense_loss_of_the_drawn_classes() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 40, requires_grad=True), torch.tensor([0, 7, 9, 7, 0, 30])
    counts = torch.arange(40)
    torch.manual_seed(4)
    compared = compared_classes(labels, counts, 10).tolist()
    torch.manual_seed(4)
    loss = federated_loss(logits, labels, counts, num_classes=10)
    assert loss.item() == pytest.approx(dense(logits, labels, set(compared)), rel=1e-5)
    loss.backward()
    touched = logits.grad.abs().sum(dim=0).nonzero().flatten()
    assert set(touched.tolist()) == set(compared)


def test_classes_are_unique_and_hold_those_that_occur() -> None:
    torch.manual_seed(0)
    counts = torch.ones(100)
    counts[50:] = 0
    for _ in range(20):
        found = compared_classes(torch.tensor([0, 60, 3, 3]), counts, 20).tolist()
        assert len(found) == len(set(found)) == 19  # the background counts as one of the 20
        assert {60, 3} <= set(found)
        assert 0 not in found
        assert all(c < 50 for c in found if c != 60)


def test_drawn_in_proportion_to_the_root_of_the_counts() -> None:
    torch.manual_seed(0)
    counts = torch.tensor([1000.0, 1.0, 4.0, 16.0])
    draws = torch.cat([compared_classes(torch.tensor([0]), counts, 2) for _ in range(3000)])
    frequency = draws.bincount(minlength=4) / len(draws)
    expected = torch.tensor([0, 1, 2, 4]) / 7
    torch.testing.assert_close(frequency, expected, atol=0.03, rtol=0)


def test_more_classes_than_asked_and_none_to_draw() -> None:
    assert compared_classes(torch.arange(5), torch.ones(9), 3).tolist() == [1, 2, 3, 4]
    assert compared_classes(torch.tensor([0, 2]), torch.zeros(9), 50).tolist() == [2]


def test_no_regions_and_low_precision() -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    loss = federated_loss(logits, torch.zeros(0, dtype=torch.int64), torch.ones(5))
    assert loss == 0
    loss.backward()
    half = federated_loss(torch.full((2, 5), -9.0).bfloat16(), torch.tensor([0, 0]), torch.ones(5))
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(4 * 1.2340e-4, rel=1e-2)
