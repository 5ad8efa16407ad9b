"""What has no figure yet, taken out of the page's sections into one list with the commands."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.report.cells import Table


@dataclass(frozen=True)
class NotRun:
    """One thing that the page would show.

    Attributes:
        title: What it is.
        command: What makes it.
        reason: Why it is not here, as far as that says more than the command.
        table: With its published rows, for those who want them; None where there is none.
    """

    title: str
    command: str
    reason: str = ""
    table: Table | None = None


OTHERS = {
    "broken": NotRun(
        "Success of each attack", "make evaluate", "no record says which attack broke an image"
    ),
    "steps": NotRun(
        "Success of PGD over its steps",
        "make evaluate CONFIG=FILE",
        "FILE with PGD of two numbers of steps at one radius",
    ),
    "labels": NotRun("Counts of the pseudo labels", "make stage2-pseudolabels"),
    "gallery": NotRun("Human and pseudo part masks", "make report IMAGENET=FOLDER PINPP=FOLDER"),
    "examples": NotRun("Adversarial examples", "make evaluate", "no example pairs"),
    "curves": NotRun("Learning curves", "make stage3-mpm", "no event files in the run folders"),
}
"""What is no table, by the name that the template uses."""


def fold(tables: Mapping[str, Any]) -> tuple[dict[str, Any], list[NotRun]]:
    """Parts tables with a measured figure from those without any.

    Args:
        tables: By the name that the template uses; a table, None or a list of tables.

    Returns:
        The same names with what was measured alone, None or a shorter list in place of the rest;
        and an entry for every table that was taken out, in their order.
    """
    kept: dict[str, Any] = {}
    folded = []
    for name, value in tables.items():
        group = value if isinstance(value, list) else [value]
        found = [table for table in group if table is not None]
        folded += [_entry(table) for table in found if not table.has_values]
        measured = [table for table in found if table.has_values]
        kept[name] = measured if isinstance(value, list) else next(iter(measured), None)
    return kept, folded


def stage_entries(lines: Iterable[str]) -> list[NotRun]:
    """Entries of lines such as `stage1_segmenter: not run, make stage1-segmenter`."""
    split = [line.partition(": not run, ") for line in lines]
    return [NotRun(title, command) for title, _, command in split]


def other_entries(names: Iterable[str], gallery_note: str) -> list[NotRun]:
    """Entries of `OTHERS` by name; `gallery_note` says why there are no masks to show."""
    notes = {"gallery": gallery_note.removeprefix("not shown: ")}
    return [replace(OTHERS[name], reason=notes.get(name, OTHERS[name].reason)) for name in names]


def _entry(table: Table) -> NotRun:
    reasons: Sequence[str] = [one for one in table.reasons if not one.startswith("not run")]
    return NotRun(table.title, table.command, "; ".join(reasons[:2]), table)
