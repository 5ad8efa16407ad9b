"""Differences, times and the front against references."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom, ttest_1samp, ttest_rel
from torch import nn

from pipeline.evaluation.set_gaps import SetRecords, set_gap, set_mean
from pipeline.report.deploy.front import Verdict, dominators
from pipeline.report.deploy.latency import measure_latency, median_gap
from tests.pipeline.report.deploy.deploy_runs import shifted


def records(run: Path, outcomes: dict[str, np.ndarray]) -> SetRecords:
    shifted(run, "m", outcomes)
    return SetRecords(run / "generalisation")


def test_gap_of_one_set_is_the_paired_t_interval(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random(60) < 0.8, rng.random(60) < 0.5
    pair = [records(tmp_path / n, {"sketch": x}) for n, x in (("a", one), ("b", other))]
    found = set_gap(*pair, {"sketch": 1.0})
    assert found is not None
    wanted = ttest_rel(one.astype(float), other.astype(float)).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.value == pytest.approx(one.mean() - other.mean())
    assert found.is_decided
    assert not found.is_equal


def test_an_image_under_several_corruptions_is_one_draw(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    names = [f"fog/{severity}" for severity in range(1, 6)]
    hard = rng.random(50) < 0.5  # the same images are hard under all
    one = {name: hard | (rng.random(50) < 0.1) for name in names}
    other = {name: rng.random(50) < 0.5 for name in names}
    pair = [records(tmp_path / n, x) for n, x in (("a", one), ("b", other))]
    found = set_gap(*pair, dict.fromkeys(names, 0.2))
    assert found is not None
    apart = np.mean([one[n].astype(float) - other[n].astype(float) for n in names], axis=0)
    wanted = ttest_1samp(apart, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    mean = set_mean(pair[0], dict.fromkeys(names, 0.2))
    assert mean is not None
    wanted = ttest_1samp(np.mean([one[n] for n in names], axis=0), 0).confidence_interval(0.95)
    assert (mean.low, mean.high) == pytest.approx((wanted.low, wanted.high))


def test_what_cannot_be_paired_has_no_gap(tmp_path: Path) -> None:
    few = np.ones(20, dtype=bool)
    pair = [records(tmp_path / n, {"sketch": few}) for n in "ab"]
    assert set_gap(*pair, {"sketch": 1.0}) is None  # too few
    assert set_gap(*pair, {"stylized": 1.0}) is None  # no records
    many = np.ones(40, dtype=bool)
    pair = [records(tmp_path / n, {"sketch": many}) for n in "cd"]
    equal = set_gap(*pair, {"sketch": 1.0})
    assert equal is not None
    assert equal.is_equal
    (tmp_path / "d/generalisation/records/sketch/00000.parquet").write_bytes(b"x")
    with pytest.raises(ValueError, match="sketch holds a damaged record"):
        set_gap(pair[0], SetRecords(tmp_path / "d/generalisation"), {"sketch": 1.0})


def test_median_interval_is_that_of_order_statistics() -> None:
    times = np.random.default_rng(2).gamma(3, 2, 101)
    found = median_gap(times)
    ordered = np.sort(times)
    assert found.value == ordered[50]
    low, high = (int(np.flatnonzero(ordered == end)[0]) for end in (found.low, found.high))
    # coverage of [X(low), X(high)]: the number of times below the median is binomial
    covered = binom.cdf(high, 101, 0.5) - binom.cdf(low, 101, 0.5)
    assert 0.95 <= covered < 0.98
    assert not median_gap(times, times + np.where(np.arange(101) % 2, 1, -1)).is_decided
    slower = median_gap(times, times + 0.1)
    assert slower.value == pytest.approx(-0.1)
    assert slower.is_decided


class Noted(nn.Module):
    def __init__(self, name: str, calls: list[str], work: int) -> None:
        super().__init__()
        self.name, self.calls, self.work = name, calls, work

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls.append(self.name)
        assert images.shape == (2, 3, 8, 8)
        square = torch.ones(self.work, self.work)
        return square @ square


def test_networks_take_turns() -> None:
    calls: list[str] = []
    networks = {name: (Noted(name, calls, work), 8) for name, work in (("a", 4), ("b", 400))}
    times = measure_latency(networks, torch.device("cpu"), 2, rounds=20, warm_up=3)
    assert [len(found) for found in times.values()] == [20, 20]
    rounds = [tuple(calls[place : place + 2]) for place in range(0, len(calls), 2)]
    assert len(rounds) == 23
    assert set(rounds) == {("a", "b"), ("b", "a")}  # each once a round, in both orders
    assert median_gap(times["b"], times["a"]).low > 0
    for wrong in ({"batch_size": 0}, {"rounds": 9}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
            measure_latency(networks, torch.device("cpu"), **wrong)


def test_front_is_that_of_numbers_where_all_is_decided() -> None:
    values = np.random.default_rng(3).integers(0, 4, (12, 3))
    names = [str(place) for place in range(12)]

    def judge(first: str, second: str, criterion: str) -> Verdict:
        one, other = (values[int(name), int(criterion)] for name in (first, second))
        return "equal" if one == other else "better" if one > other else "worse"

    found = dominators(names, ["0", "1", "2"], judge)
    for name in names:
        mine = values[int(name)]
        wanted = [
            n for n in names if (values[int(n)] >= mine).all() and (values[int(n)] > mine).any()
        ]
        assert found[name] == wanted
    assert [] in found.values()


@pytest.mark.parametrize(
    ("verdicts", "dominates"),
    [
        (["better", "equal"], True),
        (["better", "undecided"], False),
        (["better", "worse"], False),
        (["equal", "equal"], False),
    ],
)
def test_an_undecided_difference_protects(verdicts: list[Verdict], dominates: bool) -> None:
    table = dict(zip("xy", verdicts, strict=True))

    def judge(first: str, second: str, criterion: str) -> Verdict:
        return table[criterion] if first == "a" else "worse"

    assert dominators(["a", "b"], ["x", "y"], judge)["b"] == (["a"] if dominates else [])
