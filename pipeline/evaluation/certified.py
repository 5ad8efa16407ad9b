"""Certified accuracy: what randomised smoothing guarantees of the smoothed classifier."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa

from datamodules.evaluation.attack_units import wilson_interval
from modules.attacks.smoothing import RandomisedSmoothing
from pipeline.evaluation.summary_file import parse_row


@dataclass(frozen=True)
class CertifiedShare:
    """Share of images that are right and certified at a radius.

    Attributes:
        radius: l_2, in [0, 1] pixel units.
        accuracy: in [0, 1].
        ci95: ends of its 95 % interval, of the choice of images alone.
    """

    radius: float
    accuracy: float
    ci95: Sequence[float]


@dataclass(frozen=True)
class CertifiedRow:
    """Certified accuracy of a classifier that randomised smoothing made of the network.

    Attributes:
        name: of the threat in the configuration.
        sigma: standard deviation of the noise.
        n0: noisy copies that chose the class.
        n: noisy copies that bound its probability.
        alpha: probability that the radius of an image is too large.
        images: number of images.
        clean: accuracy in [0, 1] of the network without noise on the same images.
        abstained: number of images of which nothing is certified.
        shares: by radius, ascending.
        early: whether a stopping rule ended the evaluation.
    """

    name: str
    sigma: float
    n0: int
    n: int
    alpha: float
    images: int
    clean: float
    abstained: int
    shares: list[CertifiedShare]
    early: bool = False

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Self:
        """From plain values."""
        shares = [parse_row(CertifiedShare, row) for row in content["shares"]]
        return parse_row(cls, {**content, "shares": shares})


def certified_row(
    name: str, threat: RandomisedSmoothing, table: pa.Table, early: bool
) -> CertifiedRow:
    """Sums up the records of randomised smoothing.

    Args:
        name: of the threat.
        threat: what certified the images.
        table: all its records, as in `CERTIFIED_SCHEMA`.
        early: whether a stopping rule ended the evaluation.
    """
    names = ("label", "clean_prediction", "robust", "radius", "abstained")
    label, clean, right, radius, abstained = (table[one].to_numpy() for one in names)
    shares = []
    for distance in threat.radii:
        certified = int((right & (radius >= distance)).sum())
        interval = wilson_interval(certified, table.num_rows)
        shares.append(CertifiedShare(distance, certified / table.num_rows, interval))
    return CertifiedRow(
        name,
        threat.sigma,
        threat.n0,
        threat.n,
        threat.alpha,
        table.num_rows,
        float((label == clean).mean()),
        int(abstained.sum()),
        shares,
        early,
    )


def certified_line(row: CertifiedRow) -> str:
    """One line about a row."""
    shares = ", ".join(f"{one.accuracy:.1%} at l2 {one.radius:g}" for one in row.shares)
    return (
        f"{row.name}: smoothed with sigma {row.sigma:g}, certified {shares} "
        f"of {row.images} images, {row.abstained} abstained"
    )
