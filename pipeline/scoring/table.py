"""Scores of a segmenter's results on the terminal."""

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

KINDS = {
    "masks": ("segm_", ""),
    "masks, category filter": ("segm_", "_filtered"),
    "boxes": ("bbox_", ""),
    "boxes, category filter": ("bbox_", "_filtered"),
    "masks, any category": ("agnostic_segm_", ""),
    "boxes, any category": ("agnostic_bbox_", ""),
}
COLUMNS = {"AP": "AP", "AP50": "AP50", "AP75": "AP75", "small": "APs", "medium": "APm"}
COLUMNS["large"] = "APl"
OVERLAPS = {
    "best overlap mIoU, over masks": "best_overlap_mIoU",
    "best overlap mIoU, over categories": "best_overlap_mIoU_by_category",
    "composite mIoU": "semantic_mIoU",
    "composite mIoU, category filter": "semantic_mIoU_filtered",
}


def print_scores(values: Mapping[str, float], title: str) -> None:
    """Prints AP and mIoU in percent; what was not measured is left out.

    Args:
        values: see `SegmenterScores`.
        title: what was scored.
    """
    table = Table(title=escape(title), title_justify="left")
    table.add_column("COCO AP, percent")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for name, (prefix, suffix) in KINDS.items():
        found = [values.get(f"{prefix}{column}{suffix}") for column in COLUMNS.values()]
        if found[0] is not None:
            table.add_row(name, *map(_percent, found))
    console = Console()
    console.print(table)
    for name, key in OVERLAPS.items():
        if key in values:
            console.print(f"{name:36}{_percent(values[key])}", highlight=False)


def _percent(value: float | None) -> str:
    return "-" if value is None or value < 0 else f"{100 * value:.1f}"
