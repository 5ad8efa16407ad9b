"""Means and confidence intervals over seeds, and whether the paper's ordering holds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from pipeline.study.results import Result
from pipeline.study.rows import Claim


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes:
        mean: of the values.
        half: half the width of its 95 % confidence interval, nan for a single value.
        n: number of values.
    """

    mean: float
    half: float
    n: int


def mean_interval(values: Sequence[float]) -> Mean | None:
    """Mean and 95 % confidence interval (Student's t) of independent values; None for none."""
    n = len(values)
    if not n:
        return None
    half = math.nan
    if n > 1:
        half = float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return Mean(statistics.fmean(values), half, n)


def accuracies(results: Sequence[Result], row: str, threat: str) -> dict[int, float]:
    """The accuracies of a row under a threat, in percent, by seed."""
    return {
        result.seed: 100 * result.accuracies[threat]
        for result in results
        if result.row == row and threat in result.accuracies
    }


def over_seeds(results: Sequence[Result], row: str, threat: str) -> Mean | None:
    """Mean accuracy of a row in percent; None if no run is complete."""
    return mean_interval(list(accuracies(results, row, threat).values()))


def paired_difference(results: Sequence[Result], row: str, other: str, threat: str) -> Mean | None:
    """Mean difference of two rows in percentage points, over the seeds that both have."""
    one, two = accuracies(results, row, threat), accuracies(results, other, threat)
    return mean_interval([one[seed] - two[seed] for seed in sorted(one.keys() & two.keys())])


def verdict(claim: Claim, results: Sequence[Result], threat: str) -> str:
    """Whether a claim of the paper holds here under a threat, in words."""
    difference = paired_difference(results, claim.better, claim.worse, threat)
    if difference is None:
        return "not run"
    holds = difference.mean > 0 or (not claim.strict and difference.mean == 0)
    answer = "holds" if holds else "does not hold"
    if difference.n == 1:
        return f"{answer} ({difference.mean:+.1f}, one seed)"
    certain = abs(difference.mean) > difference.half
    sure = "interval without 0" if certain else "within the noise"
    return f"{answer} ({difference.mean:+.1f} ± {difference.half:.1f}, {sure})"
