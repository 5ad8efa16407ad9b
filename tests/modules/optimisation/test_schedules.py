"""Factors of the learning rate against the formulas of the recipes."""

import math
from typing import Any

import pytest
import torch

from modules.optimisation.schedules import Schedule, scheduled


def test_authors_warm_up_and_cosine() -> None:
    """From 0.005 of the rate over two of ten epochs, then a cosine to the floor."""
    schedule = Schedule(warmup_epochs=2, warmup_start=0.005, min_lr_ratio=0.05)
    assert schedule.first() == 0.005
    assert schedule.factor(10, 100, 10) == pytest.approx(0.005 + 0.995 / 2)
    half = 0.05 + 0.95 * (1 + math.cos(math.pi / 2)) / 2
    assert schedule.factor(20, 100, 10) == pytest.approx(1)
    assert schedule.factor(60, 100, 10) == pytest.approx(half)
    assert schedule.factor(100, 100, 10) == pytest.approx(0.05)
    assert schedule.factor(140, 100, 10) == pytest.approx(0.05)


def test_equal_steps_and_milestones() -> None:
    schedule = Schedule(warmup_steps=4, shape="multistep", milestones=(0.5, 0.75))
    found = [schedule.factor(step, 20, 1) for step in (0, 1, 3, 4, 9, 10, 15)]
    assert found == pytest.approx([0.25, 0.5, 1, 1, 1, 0.1, 0.01])
    assert schedule.first() == 0.25


def test_no_warm_up_begins_at_the_full_rate() -> None:
    assert Schedule().first() == 1
    assert Schedule().factor(0, 10, 1) == 1


def test_a_warm_up_of_epochs_names_its_start() -> None:
    with pytest.raises(ValueError, match="warmup_start"):
        Schedule(warmup_epochs=1)


def test_the_extent_is_not_asked_before_the_first_step() -> None:
    asked = []

    def extent() -> tuple[float, int]:
        asked.append(True)
        return 10, 1

    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [weight], "lr_scale": 0.5}], lr=2.0)
    found = scheduled(optimizer, Schedule(warmup_steps=2), extent)
    assert not asked
    assert optimizer.param_groups[0]["lr"] == 0.5  # half of the scaled rate
    optimizer.step()
    found["lr_scheduler"]["scheduler"].step()
    assert asked
    assert optimizer.param_groups[0]["lr"] == 1.0
    assert found["lr_scheduler"]["interval"] == "step"


@pytest.mark.parametrize("rates", [(2.0, 2.0), (2.0, 0.5), (1e12, 1e-3), (0.0, 0.5)])
def test_a_resumed_schedule_has_the_configured_rates(rates: tuple[float, float]) -> None:
    """Also those before its next step, and exactly as they were where nothing was changed."""

    def run(rate: float) -> tuple[torch.optim.Optimizer, Any]:
        weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
        groups = [{"params": [weights[0]], "lr_scale": 0.3}, {"params": [weights[1]]}]
        optimizer = torch.optim.SGD(groups, lr=rate)
        found = scheduled(optimizer, Schedule(warmup_steps=3), lambda: (20, 1))
        return optimizer, found["lr_scheduler"]["scheduler"]

    old, new = (run(rate) for rate in rates)
    uncut = run(rates[1])
    for optimizer, scheduler in (old, uncut):
        for _ in range(2):
            optimizer.step()
            scheduler.step()
    new[0].load_state_dict(old[0].state_dict())
    new[1].load_state_dict(old[1].state_dict())
    for _ in range(8):
        found, expected = ([g["lr"] for g in each[0].param_groups] for each in (new, uncut))
        assert found == expected if rates[0] == rates[1] else found == pytest.approx(expected)
        assert new[1].get_last_lr() == found
        for optimizer, scheduler in (new, uncut):
            optimizer.step()
            scheduler.step()
