"""Tables of few-shot classification: accuracies of each model, paired differences of two."""

from collections.abc import Mapping, Sequence

from pipeline.few_shot.episode_scores import LINEAR_PROBE, NEAREST_MEAN, Setting
from pipeline.few_shot.summary import FewShotComparison, FewShotRow, FewShotSummary
from pipeline.report.cells import Cell, Column, Row, Table

COMMAND = "make few-shot MODEL=FOLDER PINPP_VAL=FOLDER"
USUAL = [
    Setting(view, shots, classifier)
    for view in ("image", "box")
    for shots in (1, 5)
    for classifier in (NEAREST_MEAN, LINEAR_PROBE)
]


def few_shot_table(summaries: Mapping[str, FewShotSummary]) -> Table:
    """Accuracies by name of the run folder."""
    settings = _settings([one.rows for one in summaries.values()])
    rows = [Row(name, _detail(one), _cells(one.rows, settings)) for name, one in summaries.items()]
    if not rows:
        cells = tuple(Cell(note="not run: make few-shot") for _ in settings)
        rows = [Row("no model", "", cells)]
    caption = (
        "Accuracy in percent, mean over episodes with its 95 % interval, on frozen features of "
        "whole images and of the crops of their objects."
    )
    title = "Few-shot classification"
    columns = _columns(settings)
    return Table("few_shot", title, caption, columns, tuple(rows), command=COMMAND)


def few_shot_differences(comparisons: Sequence[FewShotComparison]) -> Table | None:
    """Differences of two models on the same episodes; None where none were compared."""
    if not comparisons:
        return None
    settings = _settings([one.rows for one in comparisons])
    rows = [
        Row(f"{one.model} less {one.against}", "", _cells(one.rows, settings))
        for one in comparisons
    ]
    caption = (
        "Percentage points with their 95 % interval, paired by episode: an interval without 0 "
        "decides which model is better on episodes of these images."
    )
    title = "Few-shot classification, differences"
    columns = _columns(settings)
    more = {"of": "models", "command": f'{COMMAND} ARGS="--against=RUN"'}
    return Table("few_shot_differences", title, caption, columns, tuple(rows), **more)


def _settings(groups: Sequence[Sequence[FewShotRow]]) -> list[Setting]:
    found = [Setting(row.view, row.shots, row.classifier) for rows in groups for row in rows]
    return list(dict.fromkeys(found)) or USUAL


def _columns(settings: Sequence[Setting]) -> tuple[Column, ...]:
    return tuple(Column(str(one)) for one in settings)


def _cells(rows: Sequence[FewShotRow], settings: Sequence[Setting]) -> tuple[Cell, ...]:
    found = {Setting(row.view, row.shots, row.classifier): row for row in rows}
    return tuple(_cell(found.get(one)) for one in settings)


def _cell(row: FewShotRow | None) -> Cell:
    if row is None:
        return Cell(note="not measured: no boxes, or other --shots")
    low, high = row.ci95
    return Cell(100 * row.accuracy, 100 * low, 100 * high)


def _detail(one: FewShotSummary) -> str:
    drawn = one.drawn
    known = "trained on how many of them is not recorded"
    if drawn.trained_classes is not None:
        known = f"trained on {drawn.trained_classes} of them"
    length = "at length 1" if one.normalised else "as they are"
    return (
        f"{drawn.way}-way, {drawn.queries} queries, {drawn.episodes} episodes; features: "
        f"{one.features}, {length}; {drawn.classes} classes, {known}"
    )
