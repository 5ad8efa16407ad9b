"""Intervals over trainings and images together, and what they decide."""

import math

import numpy as np
import pytest
from scipy import stats

from pipeline.study.results import Result
from pipeline.study.rows import Claim
from pipeline.study.summary import Estimate, accuracy, difference, estimate, margin, verdict

CLAIM = Claim("mpm", "vanilla", "Table 2")


def simulated(
    rng: np.random.Generator, folds: int, seeds: int, images: int, run_error: float
) -> list[dict[str, float]]:
    """Values around 0 that share the effect of their image, and that of their training."""
    effect = rng.normal(0, 28, folds * images)
    runs = []
    for _ in range(seeds):
        for fold in range(folds):
            keys = range(fold * images, (fold + 1) * images)
            values = effect[list(keys)] + rng.normal(0, 28, images) + rng.normal(0, run_error)
            runs.append({str(key): float(value) for key, value in zip(keys, values, strict=True)})
    return runs


@pytest.mark.parametrize(
    ("folds", "seeds", "images", "run_error"),
    [(5, 1, 200, 0), (5, 1, 200, 2), (5, 2, 200, 4), (1, 5, 400, 0), (1, 5, 400, 4)],
)
def test_intervals_cover_the_truth(folds: int, seeds: int, images: int, run_error: float) -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        found = estimate(simulated(rng, folds, seeds, images, run_error))
        assert found is not None
        covered += abs(found.mean) <= found.half
    assert 0.91 <= covered / 300 <= 0.995


def test_one_value_an_image_and_run_gives_the_plain_standard_error() -> None:
    found = estimate([{"a": 1.0, "b": 4.0}, {"c": 2.0, "d": 3.0}])  # both runs have the mean 2.5
    assert found is not None
    assert found.mean == 2.5
    assert (found.runs, found.images) == (2, 4)
    assert found.error == pytest.approx(np.std([1, 4, 2, 3], ddof=1) / 2)
    assert found.half == pytest.approx(1.959964 * found.error)


def test_runs_that_differ_widen_the_interval() -> None:
    alike = [{f"{run}{i}": float(i % 2) for i in range(50)} for run in range(4)]
    apart = [{key: value + run for key, value in r.items()} for run, r in enumerate(alike)]
    narrow, wide = estimate(alike), estimate(apart)
    assert narrow is not None
    assert wide is not None
    assert wide.half > 10 * narrow.half
    # four disjoint clusters: the standard error of their means, Student's t of 3
    assert wide.error == pytest.approx(np.std([0, 1, 2, 3], ddof=1) / 2)
    assert wide.quantile == pytest.approx(3.18245, rel=1e-5)
    assert wide.detectable == pytest.approx(4.25590 * wide.error, rel=1e-5)
    assert narrow.detectable == pytest.approx((1.959964 + 0.841621) * narrow.error)


def test_detectable_is_found_in_80_percent_of_simulated_studies() -> None:
    rng = np.random.default_rng(3)
    factors = {}
    for runs in range(2, 51):
        quantile = float(stats.t.ppf(0.975, runs - 1))
        factors[runs] = Estimate(0.0, 1.0, quantile, runs, 100, runs - 1).detectable
        drawn = rng.normal(factors[runs] / math.sqrt(runs), 1, (20_000, runs))
        half = quantile * drawn.std(1, ddof=1) / math.sqrt(runs)
        assert np.mean(abs(drawn.mean(1)) > half) == pytest.approx(0.8, abs=0.012)
    # by numerical integration of the normal tail over the distribution of the standard error
    known = {2: 16.334, 3: 5.6535, 5: 3.7611, 10: 3.1496}
    assert {runs: factors[runs] for runs in known} == pytest.approx(known, rel=1e-4)


def test_no_run_and_one_run() -> None:
    assert estimate([]) is None
    single = estimate([{"a": 1.0, "b": 2.0}])
    assert single is not None
    assert math.isnan(single.half)
    assert not single.is_decided


def results(row: str, right: list[np.ndarray], fold: int | None = None) -> list[Result]:
    return [
        Result(row, row, seed, fold, {"clean": {str(i): bool(x) for i, x in enumerate(values)}})
        for seed, values in enumerate(right)
    ]


def test_differences_are_paired_by_run_and_image() -> None:
    rng = np.random.default_rng(1)
    vanilla = [rng.random(400) < 0.5 for _ in range(5)]
    better = [values | (rng.random(400) < 0.1) for values in vanilla]
    both = [*results("vanilla", vanilla), *results("mpm", better)]
    gap = difference(both, "mpm", "vanilla", "clean")
    one, two = (accuracy(both, row, "clean") for row in ("mpm", "vanilla"))
    assert gap is not None
    assert one is not None
    assert two is not None
    assert gap.mean == pytest.approx(one.mean - two.mean)
    assert gap.half < one.half
    assert gap.is_decided
    assert gap.detectable > gap.half
    elsewhere = results("mpm", better, fold=1)
    assert difference([*both[:5], *elsewhere], "mpm", "vanilla", "clean") is None


def test_verdicts_say_what_is_decided() -> None:
    rng = np.random.default_rng(2)
    vanilla = [rng.random(500) < 0.5 for _ in range(5)]
    above = [values | (rng.random(500) < 0.2) for values in vanilla]
    alike = [values ^ (rng.random(500) < 0.05) for values in vanilla]
    worse, better = results("vanilla", vanilla), results("mpm", above)
    assert verdict(CLAIM, [*worse, *better], "clean").startswith("holds (+")
    swapped = [*results("mpm", vanilla), *results("vanilla", above)]
    assert verdict(CLAIM, swapped, "clean").startswith("does not hold (-")
    assert verdict(CLAIM, [*worse, *results("mpm", alike)], "clean").startswith("undecided (")
    assert verdict(CLAIM, [*worse[:1], *better[:1]], "clean").startswith("one run (+")
    assert verdict(CLAIM, worse, "clean") == "not run"


@pytest.mark.parametrize(
    ("mean", "answer"),
    [
        (0.2, "not more (+0.2 ± 1.0)"),
        (-0.5, "undecided (-0.5 ± 1.0)"),
        (-2.5, "more (-2.5 ± 1.0)"),
    ],
    ids=["not_more", "undecided", "more"],
)
def test_a_margin_is_kept_if_all_of_the_interval_does(mean: float, answer: str) -> None:
    assert margin(Estimate(mean, 0.5, 2.0, 5, 100), 1.0) == answer
    assert margin(Estimate(mean, math.nan, math.nan, 1, 100), 1.0) == f"one run ({mean:+.1f})"
    assert margin(None, 1.0) == "not run"
