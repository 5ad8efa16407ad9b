"""Tables of the part segmenter, beside the published rows."""

from collections.abc import Mapping
from pathlib import Path

from pipeline import published
from pipeline.report.cells import Cell, Column, Row, Table, published_row
from pipeline.report.reading.segmenter import COLUMNS, category_tables, segmenter_rows
from pipeline.runs.stages import SEGMENTER
from pipeline.validation.object_segmentation import (
    PART_AP,
    TITLES,
    detects_objects,
    object_segmentation,
)


def segmenter_table(metrics: Mapping[str, float], on_val: bool) -> Table:
    """AP without and with the category filter beside the paper's Table 5.

    Args:
        metrics: Content of `metrics.json`; empty where stage 1 has not run.
        on_val: Whether AP was measured on annotated val images.
    """
    unmeasured = Cell(note="not measured: nothing of this size, or of this kind, to measure")
    rows = []
    for found in segmenter_rows(metrics):
        cells = tuple(Cell(v) if v is not None else unmeasured for v in found.values.values())
        rows.append(Row("this run", _filter(found.filter), cells))
    for row in published.TABLE_5_SEGMENTER:
        values = (row.ap, row.ap50, *(None for _ in range(len(COLUMNS) - 2)))
        rows.append(published_row("Swin-B", _filter(row.category_filter), values))
    images = (
        "the annotated val images (PINPP_VAL)"
        if on_val
        else "the held-out tenth of the annotated images"
    )
    caption = (
        f"COCO mask AP in percent on {images}. The category filter keeps only parts of the "
        "image's own object. Object AP: the parts of an object united. Semantic mIoU: the label "
        "maps that stage 3 is taught with."
    )
    columns = tuple(Column(title) for title in COLUMNS)
    source = f"{published.AP_SCALE_NOTE} ({published.TABLE_5_SEGMENTER[0].source})"
    title = "Part segmenter (Table 5)"
    more = {"of": "segmenter", "command": SEGMENTER.target}
    return Table("segmenter", title, caption, columns, tuple(rows), source, **more)


def object_table(metrics: Mapping[str, Mapping[str, float]]) -> Table | None:
    """AP of whole objects of all segmenters; None where none has objects among its classes.

    Args:
        metrics: Content of `metrics.json` by run folder, of all runs of stage 1.
    """
    if not any(map(detects_objects, metrics.values())):
        return None
    rows = []
    for run, values in metrics.items():
        for found in object_segmentation(values):
            cells = [
                Cell(value, note="" if value is not None else _why_empty(title, values))
                for title, value in found.values.items()
            ]
            rows.append(Row(run, f"{found.way}; {_filter(found.filter)}", tuple(cells)))
    caption = (
        "COCO mask AP of whole objects in percent, the union of an object's parts being the "
        "truth, each run on its own validation images. Parts united: what a segmenter of parts "
        "finds in an image makes one mask for each object. Detected: objects are classes."
    )
    columns = tuple(Column(title) for title in TITLES)
    command = f'{SEGMENTER.target} CONFIG="small objects_and_parts" NAME=stage1_joint'
    return Table(
        "objects", "Object segmentation", caption, columns, tuple(rows), of="run", command=command
    )


def category_results(run: Path) -> list[Table]:
    """What `category_tables` gives, as tables of results.

    Raises:
        UserError: If `per_category.json` is damaged.
    """
    unmeasured = Cell(note="no ground truth")
    tables = []
    for found in category_tables(run):
        rows = []
        for group, entries in found.groups:
            for entry in entries:
                name = (
                    f"{entry['object']} : {entry['part']}" if "part" in entry else entry["object"]
                )
                figures = [entry[key] for key in found.columns.values()]
                cells = [Cell(entry["images"]), Cell(entry["masks"])]
                cells += [unmeasured if v is None else Cell(100 * v) for v in figures]
                rows.append(Row(name, group, tuple(cells)))
        caption = (
            f"The worst and the best of {found.total} by AP with the category filter, in percent; "
            "all of them are in per_category.json."
        )
        counts = (Column("images", 0), Column("masks", 0))
        columns = (*counts, *(Column(title) for title in found.columns))
        stem = f"categories_{found.title.split()[0].lower()}"
        tables.append(
            Table(
                stem,
                found.title,
                caption,
                columns,
                tuple(rows),
                of="category",
                command=SEGMENTER.target,
            )
        )
    return tables


def _why_empty(title: str, metrics: Mapping[str, float]) -> str:
    if title == PART_AP and "segm_AP" not in metrics:
        return "finds no parts"
    return "nothing of this size to measure, or measured by an earlier version"


def _filter(used: bool) -> str:
    return f"category filter: {'yes' if used else 'no'}"
