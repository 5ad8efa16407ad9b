"""Models that can be deployed: what is known of each, and how two of them differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from datamodules.corruptions import CORRUPTIONS, SEVERITIES
from pipeline.evaluation.decisions import was_stopped
from pipeline.evaluation.set_gaps import Gap, SetRecords, set_gap, set_mean
from pipeline.report.cells import Cell, Row
from pipeline.report.deploy.front import Verdict
from pipeline.report.deploy.latency import median_gap
from pipeline.report.reading.comparisons import difference
from pipeline.report.reading.evaluations import Evaluation
from pipeline.report.robustness_tables import CLEAN, LINF
from pipeline.runs.stages import GENERALISATION

ATTACK, CORRUPTED, SHIFTED = "attack", "corruptions", "shifts"
PARAMETERS, GFLOPS, MILLISECONDS = "parameters", "gflops", "ms"
COSTS = (PARAMETERS, GFLOPS, MILLISECONDS)
CORRUPTION_WEIGHTS = {
    f"{name}/{severity}": 1 / len(CORRUPTIONS) / len(SEVERITIES)
    for name in CORRUPTIONS
    for severity in SEVERITIES
}
NO_SHIFTS = Cell(note="no shift that all models were measured on")


class Cost(NamedTuple):
    """What an answer of a model costs.

    Attributes:
        parameters: of the deployed network.
        flops: floating point operations of one image; a multiply-add counts as 2.
        image_size: side of the image, pixels.
        structure: the same for networks of one structure, whatever their weights.
        times: milliseconds of a batch by round, `(rounds,)`.
    """

    parameters: int
    flops: int
    image_size: int
    structure: str
    times: np.ndarray


@dataclass(frozen=True)
class Candidate:
    """An evaluated model.

    Attributes:
        evaluation: what was measured.
        cost: what it costs; None where it could not be opened.
        note: why it could not; empty if it could.
    """

    evaluation: Evaluation
    cost: Cost | None
    note: str = ""

    @property
    def name(self) -> str:
        """Folder below `evaluate/`."""
        return self.evaluation.name

    @property
    def told(self) -> str:
        """The model as the evaluation was told."""
        return self.evaluation.model

    @cached_property
    def records(self) -> SetRecords:
        """Records of its generalisation."""
        return SetRecords(self.evaluation.folder / GENERALISATION.name)


class Field:
    """All candidates, measured by the same criteria.

    Args:
        candidates: by any order.

    Attributes:
        attack: title of the attack that they are compared under; empty where none was attacked.
        shifts: families of shifted sets that all models with any were measured on.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.candidates = {one.name: one for one in candidates}
        evaluations = [one.evaluation for one in candidates]
        self.attack = main_attack(evaluations)
        self.shifts = common_shifts(evaluations)
        self._cells = {name: self._measured(one) for name, one in self.candidates.items()}

    def cell(self, name: str, criterion: str) -> Cell:
        """Figure of a model by a criterion, or why there is none."""
        return self._cells[name][criterion]

    @property
    def criteria(self) -> list[str]:
        """Those by which any model has a figure."""
        kinds = (CLEAN, ATTACK, CORRUPTED, SHIFTED, *COSTS)
        return [
            kind
            for kind in kinds
            if any(cells[kind].value is not None for cells in self._cells.values())
        ]

    def row(self, name: str, detail: str, criteria: Sequence[str]) -> Row:
        """The row of a model in the table."""
        return Row(name, detail, tuple(self.cell(name, kind) for kind in criteria))

    def judge(self, first: str, second: str, criterion: str) -> Verdict:
        """Whether the first model is better than the second by a criterion."""
        one, other = self.candidates[first], self.candidates[second]
        if any(self.cell(name, criterion).value is None for name in (first, second)):
            return "undecided"
        if criterion in COSTS:
            return _cost_verdict(one.cost, other.cost, criterion)
        return _verdict(self._gap(one, other, criterion), high_is_good=True)

    def _gap(self, one: Candidate, other: Candidate, criterion: str) -> Gap | None:
        if criterion == CORRUPTED:
            return set_gap(one.records, other.records, CORRUPTION_WEIGHTS)
        if criterion == SHIFTED:
            return set_gap(one.records, other.records, self._shift_weights(one.evaluation))
        # the intervals of an evaluation that a comparison ended do not hold
        if was_stopped(one.evaluation.folder) or was_stopped(other.evaluation.folder):
            return None
        title = CLEAN if criterion == CLEAN else self.attack
        found = difference(one.evaluation, other.evaluation, title)
        if found is None:
            return None
        return Gap(found.gap, found.low, found.high, found.differing == 0)

    def _shift_weights(self, one: Evaluation) -> dict[str, float]:
        """Weight of each shifted set: families count alike, and so do the sets in each."""
        weights: dict[str, float] = {}
        for family in self.shifts:
            members = [name for name in one.sets if name.split("/")[0] == family]
            weights |= dict.fromkeys(members, 1 / len(self.shifts) / len(members))
        return weights

    def _measured(self, one: Candidate) -> dict[str, Cell]:
        evaluation = one.evaluation
        unknown = Cell(note=one.note or "not measured")
        cost = one.cost
        attack = evaluation.threat(self.attack) if self.attack else Cell(note="not run: no attack")
        cells = {
            CLEAN: evaluation.threat(CLEAN),
            ATTACK: attack,
            CORRUPTED: _mean(evaluation, CORRUPTIONS, one.records, CORRUPTION_WEIGHTS),
            SHIFTED: _mean(evaluation, self.shifts, one.records, self._shift_weights(evaluation))
            if self.shifts
            else NO_SHIFTS,
        }
        if cost is None:
            return cells | dict.fromkeys(COSTS, unknown)
        middle = median_gap(cost.times)
        return cells | {
            PARAMETERS: Cell(cost.parameters / 1e6),
            GFLOPS: Cell(cost.flops / 2e9),  # a multiply-add is one operation, as in the paper
            MILLISECONDS: Cell(middle.value, middle.low, middle.high),
        }


def main_attack(evaluations: Sequence[Evaluation]) -> str:
    """Title of the attack that models are compared under; empty where none was attacked.

    AutoAttack goes before others, l_inf 4/255 before other balls, then what most models met.
    """
    threats = [threat for one in evaluations for threat in one.threats if threat.norm]
    titles = [threat.title for threat in threats]
    kinds = {threat.title: threat.attack for threat in threats}

    def rank(title: str) -> tuple[bool, bool, int]:
        return kinds[title] == "AutoAttack", title == LINF, titles.count(title)

    return max(dict.fromkeys(titles), key=rank, default="")


def common_shifts(evaluations: Sequence[Evaluation]) -> list[str]:
    """Families of out-of-distribution sets that are whole in every evaluation that has any."""
    found: list[set[str]] = []
    for one in evaluations:
        names = {row.name.split("/")[0] for row in one.sets.values() if row.table == "ood"}
        whole = {name for name in names if one.measured_set(name).value is not None}
        if whole:
            found.append(whole)
    return sorted(set.intersection(*found)) if found else []


def _mean(
    one: Evaluation, families: Sequence[str], records: SetRecords, weights: Mapping[str, float]
) -> Cell:
    """Mean over families of sets; its interval where the records are there."""
    cells = [one.measured_set(name) for name in families]
    values = [cell.value for cell in cells if cell.value is not None]
    if len(values) < len(cells):
        return Cell(note=next(cell.note for cell in cells if cell.value is None))
    found = set_mean(records, weights)
    mean = sum(values) / len(values)
    if found is None:
        return Cell(mean)
    return Cell(mean, max(0.0, 100 * found.low), min(100.0, 100 * found.high))


def _cost_verdict(one: Cost | None, other: Cost | None, criterion: str) -> Verdict:
    if one is None or other is None:
        return "undecided"
    if criterion == MILLISECONDS:
        # one structure takes one time, and a difference would be of the machine
        same = one.structure == other.structure and one.image_size == other.image_size
        gap = Gap(0, 0, 0, True) if same else median_gap(one.times, other.times)
        return _verdict(gap, high_is_good=False)
    pair = (
        (one.parameters, other.parameters) if criterion == PARAMETERS else (one.flops, other.flops)
    )
    apart = pair[0] - pair[1]
    return _verdict(Gap(apart, apart, apart, apart == 0), high_is_good=False)


def _verdict(gap: Gap | None, *, high_is_good: bool) -> Verdict:
    if gap is None:
        return "undecided"
    if gap.is_equal:
        return "equal"
    if not gap.is_decided:
        return "undecided"
    return "better" if (gap.value > 0) == high_is_good else "worse"


def titles_of(field: Field, criteria: Sequence[str]) -> Mapping[str, str]:
    """Titles of the columns."""
    titles = {
        CLEAN: "clean",
        ATTACK: field.attack,
        CORRUPTED: "corruptions",
        SHIFTED: "shifts",
        PARAMETERS: "parameters, M",
        GFLOPS: "GFLOPs",
        MILLISECONDS: "ms",
    }
    return {kind: titles[kind] for kind in criteria}
