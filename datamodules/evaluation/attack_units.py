"""Units of work of the attack evaluation: what they are, whether they are done, when to stop."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import binomtest

from datamodules.evaluation.paired_stopping import PairedRule
from datamodules.files.errors import MissingInputError

RECORD_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("label", pa.int32()),
        ("clean_prediction", pa.int32()),
        ("adversarial_prediction", pa.int32()),
        ("robust", pa.bool_()),
        ("broken_by", pa.string()),
        ("linf", pa.float32()),
        ("l2", pa.float32()),
        ("l1", pa.float32()),
    ]
)
CERTIFIED_SCHEMA = pa.schema([*RECORD_SCHEMA, ("radius", pa.float64()), ("abstained", pa.bool_())])
"""Of randomised smoothing: the adversarial prediction is the smoothed one, -1 if it abstained."""

WARNINGS = "warnings"  # entry of a record's metadata: JSON list of what the attack warned of


def answer_name(names: Sequence[str], prediction: int) -> str:
    """The class of a recorded prediction in words, its number where it has no name.

    Args:
        names: names of the classes by label; those of a list without class folders end at its
            largest label, though the model has more classes.
        prediction: the class; -1, which is no class, where randomised smoothing abstained.
    """
    if prediction < 0:
        return "abstained"
    return names[prediction] if prediction < len(names) else str(prediction)


@dataclass(frozen=True)
class AttackUnit:
    """A unit of work: one threat on one chunk of the image list.

    Attributes:
        threat: name of the threat model.
        chunk: number of the chunk.
        images: its images as pairs of key and label.
        start: position of the first image in the list.
        seed: seed of the attack, a function of (seed, threat, chunk) alone.
    """

    threat: str
    chunk: int
    images: tuple[tuple[str, int], ...]
    start: int
    seed: int

    def record(self, root: Path) -> Path:
        """Where the outcomes of the unit lie below a run folder."""
        return root / "records" / self.threat / f"{self.chunk:05d}.parquet"

    def part_record(self, root: Path) -> Path:
        """Where the counts of the unit's part maps lie below a run folder."""
        return root / "parts" / self.threat / f"{self.chunk:05d}.parquet"

    def kept(self, root: Path) -> Path:
        """Where a long attack keeps what it found in the unit until there is a record."""
        return self.record(root).with_suffix(".kept")

    def outcomes(self, root: Path) -> pa.Table | None:
        """The record; None unless it holds exactly these images.

        Rows are as in `RECORD_SCHEMA`, of randomised smoothing as in `CERTIFIED_SCHEMA`.
        """
        try:
            table = pq.read_table(self.record(root))
        except (OSError, pa.ArrowInvalid):
            return None
        keys = [key for key, _ in self.images]
        known = any(table.schema.equals(one) for one in (RECORD_SCHEMA, CERTIFIED_SCHEMA))
        same = known and table["key"].to_pylist() == keys
        return table if same else None

    def is_done(self, root: Path) -> bool:
        """Whether there is a readable record of exactly these images."""
        return self.outcomes(root) is not None

    def warnings(self, root: Path) -> list[str]:
        """What the attack library warned of, as the record of the unit says."""
        metadata = pq.read_schema(self.record(root)).metadata or {}
        return list(json.loads(metadata.get(WARNINGS.encode(), b"[]")))


class StoppingRule:
    """Ends a threat at the first chunk after which enough is known.

    Which chunk that is depends on the outcomes of the chunks up to it alone, so it is the same
    for any number of processes; chunks that others finished meanwhile do not count.

    Args:
        units: all units of the evaluation, in order.
        width: enough is a 95 % interval with ends no further apart, in (0, 1]; None never is.
        paired: enough is a decided difference from another model; None never is.
    """

    def __init__(
        self, units: Sequence[AttackUnit], width: float | None, paired: PairedRule | None = None
    ) -> None:
        self.units = units
        self.width = width
        self.paired = paired
        self._robust: dict[Path, dict[str, bool]] = {}

    @property
    def may_stop(self) -> bool:
        """Whether a threat can end before its last chunk."""
        return self.width is not None or self.paired is not None

    def needed(self, root: Path) -> list[AttackUnit]:
        """Units that the result rests on, as far as the records in a run folder tell."""
        if not self.may_stop:
            return list(self.units)
        needed: list[AttackUnit] = []
        for threat in dict.fromkeys(unit.threat for unit in self.units):
            robust: dict[str, bool] = {}
            known = True
            for unit in (unit for unit in self.units if unit.threat == threat):
                needed.append(unit)
                outcomes = self._outcomes(unit, root) if known else None
                known = outcomes is not None
                robust |= outcomes or {}
                if known and self._is_enough(threat, robust):
                    break
        return needed

    def _is_enough(self, threat: str, robust: dict[str, bool]) -> bool:
        if self.width is not None:
            low, high = wilson_interval(sum(robust.values()), len(robust))
            if high - low <= self.width:
                return True
        return self.paired is not None and self.paired.is_decided(threat, robust)

    def _outcomes(self, unit: AttackUnit, root: Path) -> dict[str, bool] | None:
        path = unit.record(root)
        if path not in self._robust:
            table = unit.outcomes(root)
            if table is None:
                return None
            self._robust[path] = outcomes_of(table)
        return self._robust[path]


def outcomes_of(record: pa.Table) -> dict[str, bool]:
    """Which images of a record stood the attack, by key."""
    return dict(zip(record["key"].to_pylist(), record["robust"].to_pylist(), strict=True))


def outcomes_of_run(run: Path, units: Sequence[AttackUnit]) -> dict[str, dict[str, bool]]:
    """Outcomes of another evaluation on the same units, by threat and key.

    Args:
        run: its run folder.
        units: all units of this evaluation.

    Raises:
        MissingInputError: if the run has no record of a unit; one with records of other images in
            that place has none.
    """
    found: dict[str, dict[str, bool]] = {}
    for unit in units:
        table = unit.outcomes(run)
        if table is None:
            raise MissingInputError(
                f"{unit.record(run)} does not hold the outcomes of the {len(unit.images)} images "
                "that this evaluation attacks there: evaluate the other model first, on the same "
                "images with the same chunk_size and seed, and without stopping early"
            )
        found.setdefault(unit.threat, {}).update(outcomes_of(table))
    return found


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """95 % confidence interval of a proportion (Wilson 1927).

    Args:
        right: number of successes.
        total: number of trials, at least 1.

    Returns:
        Lower and upper end, in [0, 1].
    """
    interval = binomtest(right, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
