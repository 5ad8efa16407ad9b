"""The table of certified accuracy: lower bounds, of smoothed classifiers."""

from collections.abc import Sequence

from modules.attacks.smoothing import RADII
from pipeline.evaluation.certified import CertifiedRow
from pipeline.report.cells import Cell, Column, Row, Table
from pipeline.report.reading.evaluations import Evaluation

ABSTAINED = "abstained"
NOT_RUN = Cell(note="not run: nothing was smoothed in this evaluation")


def certified_table(evaluations: Sequence[Evaluation]) -> Table:
    """Share of images that are right and certified, by l_2 radius; models that were not come last.

    Args:
        evaluations: Evaluated models.
    """
    found = [(one, row) for one in evaluations for row in one.certified]
    radii = sorted({share.radius for _, row in found for share in row.shares}) or list(RADII)
    rows = [
        Row(f"{one.name}, sigma {row.sigma:g}", _settings(row), _cells(row, radii))
        for one, row in found
    ]
    rows += [
        Row(one.name, one.model, (NOT_RUN,) * (len(radii) + 1))
        for one in evaluations
        if not one.certified
    ]
    caption = (
        "Percent of images that the smoothed classifier gets right at every point within this l2 "
        "distance (pixels in [0, 1]; Cohen et al. 2019), with the 95 % interval of the choice of "
        "images. A lower bound, wrong for an image with probability alpha at most, and of the "
        "classifier smoothed by noise sigma: it says nothing of the model as it is, and cannot be "
        "set beside accuracies under attack. Abstained: nothing is certified."
    )
    columns = (Column(ABSTAINED), *(Column(f"l2 {radius:g}") for radius in radii))
    return Table(
        "certified",
        "Certified accuracy by randomised smoothing",
        caption,
        columns,
        tuple(rows),
        command='make evaluate CONFIG="imagenet smoothing"',
    )


def _settings(row: CertifiedRow) -> str:
    said = f"n0 {row.n0}, n {row.n}, alpha {row.alpha:g}, the model itself {row.clean:.1%} clean"
    return f"{said}, ended early" if row.early else said


def _cells(row: CertifiedRow, radii: Sequence[float]) -> tuple[Cell, ...]:
    shares = {share.radius: share for share in row.shares}
    cells = [Cell(100 * row.abstained / row.images, n=row.images)]
    for radius in radii:
        if radius not in shares:
            cells.append(Cell(note="the evaluation asks for other radii"))
            continue
        low, high = shares[radius].ci95
        cells.append(Cell(100 * shares[radius].accuracy, 100 * low, 100 * high, row.images))
    return tuple(cells)
