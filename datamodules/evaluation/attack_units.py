"""Units of work of the attack evaluation: what they are, whether they are done, when to stop."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import binomtest

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

WARNINGS = "warnings"  # entry of a record's metadata: JSON list of what the attack warned of


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

    def outcomes(self, root: Path) -> pa.Table | None:
        """The record, rows as in `RECORD_SCHEMA`; None unless it holds exactly these images."""
        try:
            table = pq.read_table(self.record(root))
        except (OSError, pa.ArrowInvalid):
            return None
        keys = [key for key, _ in self.images]
        same = table.schema.equals(RECORD_SCHEMA) and table["key"].to_pylist() == keys
        return table if same else None

    def is_done(self, root: Path) -> bool:
        """Whether there is a readable record of exactly these images."""
        return self.outcomes(root) is not None

    def warnings(self, root: Path) -> list[str]:
        """What the attack library warned of, as the record of the unit says."""
        metadata = pq.read_schema(self.record(root)).metadata or {}
        return list(json.loads(metadata.get(WARNINGS.encode(), b"[]")))


class StoppingRule:
    """Ends a threat at the first chunk after which its 95 % interval is tight enough.

    Which chunk that is depends on the outcomes of the chunks up to it alone, so it is the same
    for any number of processes; chunks that others finished meanwhile do not count.

    Args:
        units: all units of the evaluation, in order.
        width: largest distance of the interval's ends, in (0, 1]; None never ends early.
    """

    def __init__(self, units: Sequence[AttackUnit], width: float | None) -> None:
        self.units = units
        self.width = width
        self._robust: dict[Path, int] = {}

    def needed(self, root: Path) -> list[AttackUnit]:
        """Units that the result rests on, as far as the records in a run folder tell."""
        if self.width is None:
            return list(self.units)
        needed: list[AttackUnit] = []
        for threat in dict.fromkeys(unit.threat for unit in self.units):
            right = total = 0
            known = True
            for unit in (unit for unit in self.units if unit.threat == threat):
                needed.append(unit)
                robust = self._count(unit, root) if known else None
                known = robust is not None
                right, total = right + (robust or 0), total + len(unit.images)
                if known:
                    low, high = wilson_interval(right, total)
                    if high - low <= self.width:
                        break
        return needed

    def _count(self, unit: AttackUnit, root: Path) -> int | None:
        path = unit.record(root)
        if path not in self._robust:
            table = unit.outcomes(root)
            if table is None:
                return None
            self._robust[path] = sum(table["robust"].to_pylist())
        return self._robust[path]


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
