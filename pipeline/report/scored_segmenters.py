"""Table of segmenters of any make, scored by `make score-segmenter`."""

from collections.abc import Mapping

from pipeline.report.cells import Cell, Column, Row, Table

COLUMNS = {
    "AP": "segm_AP",
    "AP50": "segm_AP50",
    "AP, filter": "segm_AP_filtered",
    "AP50, filter": "segm_AP50_filtered",
    "AP, any category": "agnostic_segm_AP",
    "AP50, any category": "agnostic_segm_AP50",
    "best overlap mIoU": "best_overlap_mIoU",
    "composite mIoU": "semantic_mIoU",
    "composite mIoU, filter": "semantic_mIoU_filtered",
}
COMMAND = "make score-segmenter RESULTS=FILE PINPP_VAL=FOLDER"


def scored_table(scores: Mapping[str, Mapping[str, float]]) -> Table:
    """Figures of results that any segmenter wrote, on human masks.

    Args:
        scores: content of `metrics.json` by name of its folder.
    """
    rows = []
    for name, values in scores.items():
        cells = [_cell(values, key) for key in COLUMNS.values()]
        without = int(values["images_without_results"])
        detail = f"{int(values['images']):,} images" + (
            f", {without:,} without results" * (without > 0)
        )
        rows.append(Row(name, detail, tuple(cells)))
    if not rows:
        cells = [Cell(note=f"not run: {COMMAND}")] * len(COLUMNS)
        rows = [Row("no segmenter", "", tuple(cells))]
    caption = (
        "COCO mask AP and mean IoU in percent, each on the annotated images that it was scored on. "
        "The category filter removes parts that cannot occur on the image's object. Any category: "
        "all masks as one class. Best overlap: for each human mask the best IoU of a found one."
    )
    columns = tuple(Column(title) for title in COLUMNS)
    title = "Segmenters of any make (Fig. 2)"
    more = {"of": "segmenter", "command": COMMAND}
    return Table("scored_segmenters", title, caption, columns, tuple(rows), **more)


def _cell(values: Mapping[str, float], key: str) -> Cell:
    if key not in values:
        return Cell(note="not measured: the results have no categories")
    if values[key] < 0:
        return Cell(note="not measured: the human masks have nothing of the kind")
    return Cell(100 * values[key])
