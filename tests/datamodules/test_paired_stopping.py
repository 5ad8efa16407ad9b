"""The confidence sequence of a comparison: against its definition, and under repeated looks."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from datamodules.evaluation.paired_stopping import PairedRule, confidence_sequence


@pytest.mark.parametrize(("wins", "losses"), [(3, 1), (0, 9), (40, 60), (500, 400), (9, 0)])
def test_ends_are_where_the_mixture_likelihood_ratio_reaches_its_bound(
    wins: int, losses: int
) -> None:
    def ratio(share: float) -> float:
        def weighed(p: float) -> float:
            logs = wins * math.log(p / share) + losses * math.log((1 - p) / (1 - share))
            return math.exp(logs) * float(stats.beta.pdf(p, 0.5, 0.5))

        peak = [wins / (wins + losses)] if wins and losses else None
        return float(integrate.quad(weighed, 0, 1, points=peak, limit=400)[0])

    low, high = confidence_sequence(wins, losses)
    for end in (low, high):
        if 0 < end < 1:
            assert ratio(end) == pytest.approx(20, rel=2e-3)
    assert (low == 0) == (wins == 0)
    assert (high == 1) == (losses == 0)
    assert low <= wins / (wins + losses) <= high


def test_nothing_is_known_without_a_difference() -> None:
    assert confidence_sequence(0, 0) == (0.0, 1.0)


def test_a_rule_that_looks_after_every_image_seldom_decides_what_is_not_so() -> None:
    rng = np.random.default_rng(0)
    wrong = peeking = found = 0
    for _ in range(400):
        equal = rng.random(300) < 0.5
        wins = np.cumsum(equal)
        tosses = np.arange(1, 301)
        wrong += any(
            not low <= 0.5 <= high
            for low, high in (
                confidence_sequence(int(w), int(n - w))
                for w, n in zip(wins[4::5], tosses[4::5], strict=True)
            )
        )
        deviation = np.abs(wins - tosses / 2)[9:] / np.sqrt(tosses[9:] / 4)
        peeking += bool((deviation > 1.96).any())
        unequal = int((rng.random(300) < 0.7).sum())
        found += confidence_sequence(unequal, 300 - unequal)[0] > 0.5
    assert wrong / 400 <= 0.05
    assert peeking / 400 > 0.2  # an interval for a fixed number of images would err this often
    assert found == 400


def test_a_rule_pairs_by_image() -> None:
    keys = [f"cat/{i}.png" for i in range(60)]
    other = {key: i % 3 == 0 for i, key in enumerate(keys)}
    rule = PairedRule({"pgd": other}, 0.05)
    assert not rule.is_decided("pgd", other)
    assert not rule.is_decided("pgd", dict.fromkeys(keys[:6], True))
    assert rule.is_decided("pgd", dict.fromkeys(keys, True))
    assert rule.is_decided("pgd", dict.fromkeys(keys, False))
