"""Two models, or two projects' evaluations, side by side: `make compare A=... B=...`.

Where both name their images, the difference is paired: interval of Newcombe 1998 (method 10, score
intervals with the correlation of the pairs) and McNemar's exact test. Where one gives totals only,
as AutoAttack logs do, it is that of independent samples (Newcombe 1998b, method 10 there), which is
wider than need be.
"""

import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from datamodules.evaluation.attack_units import wilson_interval
from datamodules.files.errors import UserError
from datamodules.files.json_files import write_json
from pipeline.evaluation.decisions import FILE as DECISIONS
from pipeline.evaluation.decisions import was_stopped
from pipeline.evaluation.intervals import mcnemar, paired_difference, unpaired_difference
from pipeline.evaluation.outcome_tables import Outcomes, read_outcomes, threats_of
from pipeline.evaluation.same_measure import measured_settings, other_measures


def compare(a: Outcomes, b: Outcomes) -> dict[str, Any]:
    """The difference of two robust accuracies, B less A.

    Args:
        a: outcomes of the one.
        b: outcomes of the other.

    Returns:
        `a` and `b` (source, accuracy, ci95, n), `method` (`paired` or `unpaired`), `difference`
        and its `ci95`; if paired, also `both`, `only_a`, `only_b`, `neither` (images that stand)
        and the `p_value` of McNemar's exact test. Paired figures are those of the common images.

    Raises:
        UserError: if both name their images and have none in common.
    """
    if not (a.robust and b.robust):
        gap, interval = unpaired_difference(b.right, b.total, a.right, a.total)
        return {
            "a": _side(a.source, a.right, a.total),
            "b": _side(b.source, b.right, b.total),
            "method": "unpaired",
            "difference": gap,
            "ci95": list(interval),
        }
    pairs = _matched(a, b)
    cells = [pairs.count((x, y)) for x, y in product((True, False), repeat=2)]
    both, only_a, only_b, neither = cells
    gap, interval = paired_difference(both, only_b, only_a, neither)
    return {
        "a": _side(a.source, both + only_a, len(pairs)),
        "b": _side(b.source, both + only_b, len(pairs)),
        "method": "paired",
        "difference": gap,
        "ci95": list(interval),
        "both": both,
        "only_a": only_a,
        "only_b": only_b,
        "neither": neither,
        "p_value": mcnemar(only_a, only_b),
        "left_out": [a.total - len(pairs), b.total - len(pairs)],
    }


def _matched(a: Outcomes, b: Outcomes) -> list[tuple[bool, bool]]:
    first, second = a.robust, b.robust
    if not first.keys() & second.keys():  # other projects keep other folders
        first, second = _by_name(a), _by_name(b)
    common = sorted(first.keys() & second.keys())
    if not common:
        raise UserError(
            f"{a.source} and {b.source} have no image in common: keys such as "
            f"{min(a.robust)} and {min(b.robust)}"
        )
    return [(first[key], second[key]) for key in common]


def _by_name(outcomes: Outcomes) -> dict[str, bool]:
    names = {key.rpartition("/")[2].partition(".")[0]: key for key in outcomes.robust}
    if len(names) < len(outcomes.robust):
        return dict(outcomes.robust)
    return {name: outcomes.robust[key] for name, key in names.items()}


def _side(source: str, right: int, total: int) -> dict[str, Any]:
    interval = list(wilson_interval(right, total))
    return {"source": source, "accuracy": right / total, "ci95": interval, "n": total}


def _refuse_other_measures(a: Path, b: Path, threats: Sequence[str]) -> None:
    if found := other_measures(measured_settings(a), measured_settings(b), threats):
        raise UserError(
            f"{a} and {b} did not measure the same ({'; '.join(found)}): evaluate one of them "
            "again as the other was, or give --threat, one without such a difference"
        )


def _table(rows: Sequence[tuple[str, dict[str, Any]]]) -> Table:
    table = Table(title="Robust accuracy, 95 % intervals")
    for name in ("threat", "A", "B", "B - A", "images", "method"):
        table.add_column(name, justify="left" if name in ("threat", "method") else "right")
    for threat, row in rows:
        sides = [
            f"{side['accuracy']:.1%} [{side['ci95'][0]:.1%}, {side['ci95'][1]:.1%}]"
            for side in (row["a"], row["b"])
        ]
        gap, (low, high) = 100 * row["difference"], row["ci95"]
        method = "totals, unpaired"
        if row["method"] == "paired":
            method = f"paired, McNemar p = {row['p_value']:.2g}"
        numbers = sorted({row["a"]["n"], row["b"]["n"]})
        table.add_row(
            threat,
            *(side.replace("[", r"\[") for side in sides),
            rf"{gap:+.1f} \[{100 * low:+.1f}, {100 * high:+.1f}]",
            " / ".join(map(str, numbers)),
            method,
        )
    return table


def main(
    a: Path,
    b: Path,
    threat: str | None = None,
    images: int | None = None,
    json: Path | None = None,
) -> list[tuple[str, dict[str, Any]]]:
    """Compares the robust accuracy of two models, or of two projects' evaluations.

    Without a threat, two run folders are compared under all threats that both have.

    Args:
        a: run folder, CSV / JSON / Parquet of key and robust, or AutoAttack log.
        b: the same.
        threat: which threat of a run folder.
        images: number of images, where a log does not tell.
        json: file for the rows.

    Returns:
        Name of the threat and what `compare` returns, one row a threat.

    Raises:
        MissingInputError: if a source does not exist.
        UserError: if a source cannot be read, the two have nothing in common, or they are run
            folders whose images or threats of one name were set otherwise.
    """
    names: list[str | None] = [threat]
    if threat is None and a.is_dir() and b.is_dir():
        names = [*(name for name in threats_of(a) if name in threats_of(b))]
        if not names:
            raise UserError(f"{a} and {b} have no threat in common: give --threat")
    if a.is_dir() and b.is_dir():
        _refuse_other_measures(a, b, [name for name in names if name])
    rows = [
        (name or "", compare(read_outcomes(a, name, images), read_outcomes(b, name, images)))
        for name in names
    ]
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(_table(rows))
    for _, row in rows[:1]:
        console.print(f"A: {row['a']['source']}\nB: {row['b']['source']}", markup=False)
    for run in (a, b):
        if was_stopped(run):
            console.print(
                f"WARNING: {run} was stopped when a comparison was decided: the intervals above "
                f"are too tight and too far from 0, those of {run / DECISIONS} hold at any time",
                markup=False,
            )
    if json is not None:
        write_json(json, {"comparisons": [{"threat": name, **row} for name, row in rows]})
    return rows
