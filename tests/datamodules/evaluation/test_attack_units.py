from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules.evaluation.attack_units import (
    RECORD_SCHEMA,
    AttackUnit,
    StoppingRule,
    wilson_interval,
)


def make_units(number: int, size: int = 10) -> list[AttackUnit]:
    return [
        AttackUnit("pgd", chunk, tuple((f"a/{chunk}_{i}.png", 0) for i in range(size)), chunk, 0)
        for chunk in range(number)
    ]


def write(unit: AttackUnit, root: Path, robust: list[bool]) -> None:
    rows = [
        {
            "key": key,
            "label": 0,
            "clean_prediction": 0,
            "adversarial_prediction": 0,
            "robust": stands,
        }
        | {"broken_by": "", "linf": 0.0, "l2": 0.0, "l1": 0.0}
        for (key, _), stands in zip(unit.images, robust, strict=True)
    ]
    unit.record(root).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=RECORD_SCHEMA), unit.record(root))


def test_threat_ends_at_the_first_tight_chunk_whatever_the_order(tmp_path: Path) -> None:
    units = make_units(12)
    rng = np.random.default_rng(0)
    robust = [(rng.random(10) < 0.8).tolist() for _ in units]
    wanted = next(
        chunk
        for chunk in range(12)
        if np.diff(wilson_interval(sum(map(sum, robust[: chunk + 1])), 10 * (chunk + 1)))[0] <= 0.25
    )
    assert 0 < wanted < 10
    rule = StoppingRule(units, 0.25)
    for chunk in rng.permutation(12):
        assert rule.needed(tmp_path)[: wanted + 1] == units[: wanted + 1]
        write(units[chunk], tmp_path, robust[chunk])
    assert rule.needed(tmp_path) == units[: wanted + 1]
    assert StoppingRule(units, 0.25).needed(tmp_path) == units[: wanted + 1]
    assert StoppingRule(units, None).needed(tmp_path) == units


def test_gap_or_foreign_record_ends_nothing(tmp_path: Path) -> None:
    units = make_units(3)
    rule = StoppingRule(units, 0.9)
    write(units[1], tmp_path, [True] * 10)
    assert rule.needed(tmp_path) == units
    units[0].record(tmp_path).write_bytes(b"half a fi")
    assert rule.needed(tmp_path) == units
    write(make_units(1, size=9)[0], tmp_path, [True] * 9)
    assert not units[0].is_done(tmp_path)
    assert rule.needed(tmp_path) == units
    write(units[0], tmp_path, [True] * 10)
    assert rule.needed(tmp_path) == units[:1]


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)],
)
def test_wilson_interval_of_newcombe_1998(right: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(right, total) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(total - right, total) == pytest.approx((1 - high, 1 - low), abs=5e-5)
