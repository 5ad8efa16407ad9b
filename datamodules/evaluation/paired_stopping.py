"""When a comparison of two models is decided, however often one looks."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.special import betaln

PRIOR = 0.5  # both parameters of the Beta mixture (Jeffreys)


def confidence_sequence(wins: int, losses: int, level: float = 0.05) -> tuple[float, float]:
    """Anytime-valid interval of the share of wins among the images on which two models differ.

    The likelihood ratio of a Beta mixture against any one share is a martingale if that share is
    the true one, so by Ville's inequality it ever exceeds 1 / level with probability level at most
    (Robbins 1970): whoever stops when an interval first leaves 1/2 out errs in no more than level
    of all comparisons, which is not so for an interval of a fixed number of images.

    Args:
        wins: images that the one model alone gets right.
        losses: images that the other alone gets right.
        level: probability that the interval ever misses the true share.

    Returns:
        Lower and upper end, in [0, 1].
    """
    mixture = betaln(wins + PRIOR, losses + PRIOR) - betaln(PRIOR, PRIOR)

    def surplus(share: float) -> float:
        likelihood = 0.0
        if wins:
            likelihood += wins * math.log(share)
        if losses:
            likelihood += losses * math.log1p(-share)
        return float(mixture - likelihood - math.log(1 / level))

    tiny = 1e-12
    if not wins + losses:
        return 0.0, 1.0
    best = min(max(wins / (wins + losses), tiny), 1 - tiny)
    ends = [
        best if surplus(end) <= 0 else float(brentq(surplus, *sorted((end, best))))
        for end in (tiny, 1 - tiny)
    ]
    return (0.0 if not wins else ends[0]), (1.0 if not losses else ends[1])


class PairedRule:
    """Whether a model is decided to differ from another, whose outcomes are known.

    Args:
        reference: outcomes of the other model by threat and key.
        level: share of comparisons that may be decided wrongly.
    """

    def __init__(self, reference: Mapping[str, Mapping[str, bool]], level: float) -> None:
        self.reference = reference
        self.level = level

    def decision(self, threat: str, robust: Mapping[str, bool]) -> "PairedDecision":
        """What the images so far say of the two models under a threat.

        Args:
            threat: name of the threat.
            robust: outcomes so far, by key.
        """
        other = self.reference[threat]
        wins = sum(right and not other[key] for key, right in robust.items())
        losses = sum(other[key] and not right for key, right in robust.items())
        share = confidence_sequence(wins, losses, self.level)
        return PairedDecision(threat, self.level, len(robust), len(other), wins, losses, share)

    def is_decided(self, threat: str, robust: Mapping[str, bool]) -> bool:
        """Whether the images so far decide which model is better under a threat."""
        return bool(self.decision(threat, robust).better)


@dataclass(frozen=True)
class PairedDecision:
    """A comparison with a model whose outcomes are known, as far as it was made.

    Attributes:
        threat: name of the threat.
        level: share of comparisons that may be decided wrongly.
        images: that were attacked.
        available: that could have been.
        wins: images that this model alone gets right.
        losses: images that the other alone gets right.
        share: ends of the anytime-valid interval of wins / (wins + losses).
    """

    threat: str
    level: float
    images: int
    available: int
    wins: int
    losses: int
    share: tuple[float, float]

    @property
    def better(self) -> str:
        """Which model is better, `this` or `other`; empty if it is not decided."""
        low, high = self.share
        return "this" if low > 0.5 else "other" if high < 0.5 else ""
