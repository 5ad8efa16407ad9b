"""Differences of two proportions and means: their 95 % intervals and McNemar's exact test."""

import math

import numpy as np
from scipy.stats import binomtest, t

from datamodules.evaluation.attack_units import wilson_interval


def paired_difference(
    both: int, only_first: int, only_second: int, neither: int
) -> tuple[float, tuple[float, float]]:
    """First less second proportion of paired trials, with its 95 % interval.

    Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions
    based on paired data", method 10.

    Args:
        both: pairs in which both succeed.
        only_first: in which the first alone does.
        only_second: in which the second alone does.
        neither: in which none does.
    """
    total = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    margins = first * (total - first) * second * (total - second)
    cross = both * neither - only_first * only_second
    corrected = max(cross - total / 2, 0.0) if cross > 0 else float(cross)
    phi = corrected / math.sqrt(margins) if margins else 0.0
    return _hybrid(first, total, second, total, phi)


def unpaired_difference(
    first: int, first_total: int, second: int, second_total: int
) -> tuple[float, tuple[float, float]]:
    """First less second proportion of independent samples, with its 95 % interval.

    Newcombe 1998, "Interval estimation for the difference between independent proportions",
    method 10.

    Args:
        first: successes in the first sample.
        first_total: its size.
        second: successes in the second sample.
        second_total: its size.
    """
    return _hybrid(first, first_total, second, second_total, 0.0)


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p-value of McNemar's exact test, in [0, 1]; 1 without discordant pairs."""
    trials = only_first + only_second
    return float(binomtest(only_first, trials).pvalue) if trials else 1.0


def mean_interval(values: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Mean of independent values with its 95 % interval (Student's t); of pairs, give differences.

    Args:
        values: `(N,)`, N at least 2.
    """
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    reach = float(t.ppf(0.975, len(values) - 1)) * error
    return mean, (mean - reach, mean + reach)


def _hybrid(
    first: int, first_total: int, second: int, second_total: int, phi: float
) -> tuple[float, tuple[float, float]]:
    share, other = first / first_total, second / second_total
    (low, high), (other_low, other_high) = (
        wilson_interval(first, first_total),
        wilson_interval(second, second_total),
    )

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))

    gap = share - other
    below = reach(share - low, other_high - other)
    above = reach(high - share, other - other_low)
    return gap, (gap - below, gap + above)
