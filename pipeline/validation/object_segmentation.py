"""AP of whole objects by how they were found: parts united, or detected as classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pipeline.runs.metrics import Metrics

OBJECT_FIGURES = {
    "object AP": "AP",
    "AP50": "AP50",
    "AP75": "AP75",
    "AP small": "APs",
    "AP medium": "APm",
    "AP large": "APl",
}
PART_AP = "part AP"
TITLES = (*OBJECT_FIGURES, PART_AP)
WAYS = {"parts united": "object", "detected": "detected_object"}
"""How objects were found, and how the names of their metrics begin."""


@dataclass(frozen=True)
class ObjectSegmentation:
    """Figures of one way to find objects, without or with the category filter.

    Attributes:
        way: one of `WAYS`.
        filter: whether the category filter was used: the class is known, the mask is not.
        values: by title of `TITLES`, in percent; None where there was nothing to measure.
    """

    way: str
    filter: bool
    values: dict[str, float | None]


def object_segmentation(metrics: Mapping[str, float]) -> list[ObjectSegmentation]:
    """Every way in which a run's objects were found, from its metrics by name.

    Returns:
        Rows in the order of `WAYS`; of a segmenter of objects alone those of its objects.
    """
    rows = []
    for way, prefix in WAYS.items():
        for filtered, suffix in ((False, ""), (True, "_filtered")):
            names = {title: f"{prefix}_{name}" for title, name in OBJECT_FIGURES.items()}
            names[PART_AP] = "segm_AP"
            found = {title: metrics.get(f"{name}{suffix}", -1.0) for title, name in names.items()}
            if f"{prefix}_AP{suffix}" in metrics:
                values = {title: 100 * v if v >= 0 else None for title, v in found.items()}
                rows.append(ObjectSegmentation(way, filtered, values))
    return rows


def detects_objects(metrics: Mapping[str, float]) -> bool:
    """Whether a run's segmenter had whole objects among its classes."""
    return f"{WAYS['detected']}_AP" in metrics


def print_object_segmentation(run: Path) -> None:
    """Prints the table of a run folder's best state; nothing where nothing was measured."""
    metrics = Metrics.find(run)
    rows: Sequence[ObjectSegmentation] = object_segmentation(metrics.values) if metrics else []
    table = Table(
        title="AP of whole objects in percent",
        title_justify="left",
        box=SIMPLE_HEAD,
        collapse_padding=True,  # 80 columns are enough
    )
    for title in ("found as", "filter"):
        table.add_column(title, no_wrap=True)
    for title in TITLES:
        table.add_column(title, justify="right")
    for row in rows:
        figures = ["-" if value is None else f"{value:.1f}" for value in row.values.values()]
        table.add_row(row.way, "yes" if row.filter else "no", *figures)
    if rows:
        Console().print(table)
