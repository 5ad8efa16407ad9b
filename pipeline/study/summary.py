"""Means and 95 % intervals over trainings and images together, and what they decide."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from pipeline.study.results import Result
from pipeline.study.rows import Claim

POWER = 0.8


@dataclass(frozen=True)
class Estimate:
    """A mean in percent or percentage points.

    Attributes:
        mean: over all images of all runs.
        error: standard error, for other trainings and other images; nan for a single run.
        quantile: of the 95 % interval, in standard errors.
        runs: number of trainings.
        images: number of different images.
        freedom: degrees of freedom of Student's t that gave the quantile; inf for the normal
            distribution.
    """

    mean: float
    error: float
    quantile: float
    runs: int
    images: int
    freedom: float = math.inf

    @property
    def half(self) -> float:
        """Half the width of the 95 % interval."""
        return self.quantile * self.error

    @property
    def detectable(self) -> float:
        """The true difference for which the interval leaves 0 out in 80 % of cases.

        In standard errors it is the noncentrality at which t exceeds its quantile that often: the
        error is estimated as well, so it is more than the sum of two quantiles (power of a t test).
        """
        if math.isinf(self.freedom):
            return (self.quantile + float(stats.norm.ppf(POWER))) * self.error
        return float(special.nctdtrinc(self.freedom, 1 - POWER, self.quantile)) * self.error

    @property
    def is_decided(self) -> bool:
        """Whether the interval leaves 0 out."""
        return abs(self.mean) > self.half


def estimate(runs: Sequence[Mapping[str, float]]) -> Estimate | None:
    """Mean of values that are alike within a training and within an image.

    Its variance is that of Cameron, Gelbach and Miller 2011 for clusters in two ways (by image
    plus by run less by single value, each with its factor G / (G - 1)), and no less than that by
    image alone. Where runs differ by more than their images explain, Student's t of runs - 1 makes
    the interval, else the normal distribution. In simulations of 5 and 10 runs it covers the truth
    in 93 to 98 % of cases (`tests/pipeline/study/test_summary.py`).

    Args:
        runs: of each training, a value by key of an image.

    Returns:
        None for no value.
    """
    runs = [run for run in runs if run]
    if not runs:
        return None
    keys = {key: number for number, key in enumerate(dict.fromkeys(k for run in runs for k in run))}
    values = np.array([value for run in runs for value in run.values()], float)
    image = np.array([keys[key] for run in runs for key in run])
    trained = np.repeat(np.arange(len(runs)), [len(run) for run in runs])
    mean = float(values.mean())
    if len(runs) == 1 or len(keys) == 1:
        return Estimate(mean, math.nan, math.nan, len(runs), len(keys))
    rest = values - mean
    by_image, by_run, by_value = (
        _variance(rest, cluster) for cluster in (image, trained, np.arange(len(values)))
    )
    variance = max(by_image + by_run - by_value, by_image)
    freedom = len(runs) - 1 if variance > by_image else math.inf
    quantile = float(stats.t.ppf(0.975, freedom))
    return Estimate(mean, math.sqrt(variance), quantile, len(runs), len(keys), freedom)


def _variance(rest: np.ndarray, cluster: np.ndarray) -> float:
    """Variance of the mean of values that are independent between clusters only."""
    sums = np.bincount(cluster, rest)
    return len(sums) / (len(sums) - 1) * float((sums**2).sum()) / len(rest) ** 2


def accuracy(results: Sequence[Result], row: str, threat: str) -> Estimate | None:
    """Accuracy of a row in percent; None if no run is complete."""
    right = [r.outcomes[threat] for r in results if r.row == row and threat in r.outcomes]
    return estimate([{key: 100.0 * value for key, value in run.items()} for run in right])


def difference(results: Sequence[Result], row: str, other: str, threat: str) -> Estimate | None:
    """Difference of two rows in percentage points, over the runs and images that both have."""
    one, two = (
        {
            (result.seed, result.fold): result.outcomes[threat]
            for result in results
            if result.row == name and threat in result.outcomes
        }
        for name in (row, other)
    )
    return estimate(
        [
            {
                key: 100.0 * one[run][key] - 100.0 * two[run][key]
                for key in one[run]
                if key in two[run]
            }
            for run in one
            if run in two
        ]
    )


def verdict(claim: Claim, results: Sequence[Result], threat: str) -> str:
    """Whether a claim of the paper holds here under a threat, in words."""
    found = difference(results, claim.better, claim.worse, threat)
    if found is None:
        return "not run"
    if found.runs == 1:
        return f"one run ({found.mean:+.1f})"
    answer = "undecided"
    if found.is_decided:
        answer = "holds" if found.mean > 0 else "does not hold"
    return f"{answer} ({found.mean:+.1f} ± {found.half:.1f})"


def margin(found: Estimate | None, allowed: float) -> str:
    """Whether a row loses no more than a margin, in words.

    Args:
        found: difference of the row to another, percentage points; None for no run.
        allowed: what it may lose.
    """
    if found is None:
        return "not run"
    if found.runs == 1:
        return f"one run ({found.mean:+.1f})"
    answer = "undecided"
    if abs(found.mean + allowed) > found.half:
        answer = "not more" if found.mean > -allowed else "more"
    return f"{answer} ({found.mean:+.1f} ± {found.half:.1f})"
