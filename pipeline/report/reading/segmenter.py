"""Stage 1: AP of the run, and the categories that it segments worst and best."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.files.errors import UserError
from pipeline.report.reading.facts import read_json
from pipeline.validation import category_tables as categories
from pipeline.validation.category_tables import DETECTED, extremes

COLUMNS = {
    "AP": "segm_AP",
    "AP50": "segm_AP50",
    "AP75": "segm_AP75",
    "AP small": "segm_APs",
    "AP medium": "segm_APm",
    "AP large": "segm_APl",
    "object AP": "object_AP",
    "semantic mIoU": "semantic_mIoU",
}
"""Titles and names in `metrics.json`; a name ends in `_filtered` with the category filter."""


@dataclass(frozen=True)
class SegmenterRow:
    """Figures without or with the category filter, by title, in percent; None where unknown."""

    filter: bool
    values: dict[str, float | None]


@dataclass(frozen=True)
class CategoryTable:
    """The worst and the best categories of a kind, by AP with the filter.

    Attributes:
        title: What the rows are.
        total: Categories with ground truth.
        columns: Figures shown, titles to keys of the rows.
        groups: `worst` and `best` with their rows; figures in [0, 1] or None.
    """

    title: str
    total: int
    columns: dict[str, str]
    groups: list[tuple[str, list[categories.Row]]]


def segmenter_rows(metrics: Mapping[str, float]) -> list[SegmenterRow]:
    """Rows without and with the filter from `metrics.json`; empty when AP was not measured."""
    rows = []
    for filtered, suffix in ((False, ""), (True, "_filtered")):
        found = {title: metrics.get(f"{name}{suffix}", -1.0) for title, name in COLUMNS.items()}
        values = {title: 100 * v if v >= 0 else None for title, v in found.items()}
        if any(value is not None for value in values.values()):
            rows.append(SegmenterRow(filtered, values))
    return rows


def category_tables(run: Path, count: int = 8) -> list[CategoryTable]:
    """Worst and best parts and objects from `per_category.json`; empty without the file.

    Objects are ranked by their parts, or as detected where the segmenter finds no parts.

    Args:
        run: Run folder of stage 1.
        count: At most so many rows of either end.

    Raises:
        UserError: If the file is damaged.
    """
    content = read_json(run / "per_category.json")
    if content is None:
        return []
    shared = {"AP": "AP", "AP50": "AP50", "AP, filter": "AP_filtered"}
    shared |= {"AP50, filter": "AP50_filtered", "IoU, filter": "IoU_filtered"}
    whole = {"object AP, filter": "object_AP_filtered"}
    detected = {"AP": f"{DETECTED}AP", "AP50": f"{DETECTED}AP50"}
    detected |= {"AP, filter": f"{DETECTED}AP_filtered", "AP50, filter": f"{DETECTED}AP50_filtered"}
    kinds: list[tuple[str, str, dict[str, str], str]] = [
        ("parts", "Part categories", shared, ""),
        ("objects", "Object categories, means over their parts", shared | whole, ""),
    ]
    if _finds_objects_alone(content):
        kinds = [("objects", "Object categories", detected, DETECTED)]
    tables = []
    for key, title, columns, prefix in kinds:
        try:
            rows: list[dict[str, Any]] = content[key]
            worst, best = extremes(rows, count, prefix)
            total = sum(row[f"{prefix}AP_filtered"] is not None for row in rows)
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{run / 'per_category.json'} lacks {error}: run the stage's "
                "subcommand validate, which writes it anew"
            ) from None
        groups = [(name, group) for name, group in (("worst", worst), ("best", best)) if group]
        tables.append(CategoryTable(title, total, columns, groups))
    return tables


def _finds_objects_alone(content: Mapping[str, Any]) -> bool:
    objects: list[categories.Row] = content.get("objects") or []
    return not content.get("parts") and any(f"{DETECTED}AP_filtered" in row for row in objects)
