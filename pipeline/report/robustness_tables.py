"""Tables of accuracy under attack, beside the published rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

from pipeline import published
from pipeline.report.cells import Cell, Column, Row, Table, published_row
from pipeline.report.reading.evaluations import Evaluation, threat_title

CLEAN = "clean"
LINF = threat_title("AutoAttack", "linf", 4 / 255)
LINF_X2 = threat_title("AutoAttack", "linf", 8 / 255)
L1 = threat_title("AutoAttack", "l1", 75)
L2 = threat_title("AutoAttack", "l2", 2)
AVERAGE = "average"
PARAMETERS, GFLOPS = "parameters, M", "GFLOPs"
FIELDS = {
    CLEAN: "clean",
    LINF: "linf",
    LINF_X2: "linf_x2",
    L1: "l1",
    L2: "l2",
    AVERAGE: "average",
    PARAMETERS: "parameters",
    GFLOPS: "gflops",
}
CAPTION = "Accuracy in percent, with its 95 % interval and the number of images."

STEPS = {"clean": "wrong before", "": "standing"}
ATTACK_ORDER = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")


def result_table(evaluations: Sequence[Evaluation]) -> Table:
    """Measured accuracies beside the paper's Table 2; columns that only it has come last."""
    measured = [threat.title for one in evaluations for threat in one.threats]
    titles = [*dict.fromkeys([*measured, CLEAN, LINF, LINF_X2, L1, L2]), AVERAGE]
    rows = [
        Row(one.name, one.model, tuple(_cell(one, title) for title in titles))
        for one in evaluations
    ]
    rows += [_published(row, titles) for row in published.TABLE_2]
    columns = tuple(Column(title) for title in titles)
    source = f"{published.SCALE_NOTE} ({published.TABLE_2[0].source})"
    return Table("table_2", "Robustness (Table 2)", CAPTION, columns, tuple(rows), source)


def headline_table(table: Table, main: str = "", details: Mapping[str, str] | None = None) -> Table:
    """Few columns of the table of results, so that it can be read without scrolling.

    Args:
        table: What `result_table` gave.
        main: Title of the threat that the report opens with; empty for none.
        details: What to say of models by their name, in place of where they lie.

    Returns:
        Clean accuracy, that threat, and the published ones but their average.
    """
    titles = [column.title for column in table.columns]
    shown = [CLEAN, *([main] if main else []), LINF, LINF_X2, L1, L2]
    places = [titles.index(title) for title in dict.fromkeys(shown)]
    said = details or {}
    rows = tuple(
        Row(
            row.name,
            row.detail if row.published else said.get(row.name, ""),
            tuple(row.cells[place] for place in places),
            row.published,
        )
        for row in table.rows
    )
    columns = tuple(table.columns[place] for place in places)
    return replace(table, name="headline", title="Accuracy", columns=columns, rows=rows)


def further_tables(
    evaluations: Sequence[Evaluation], costs: Mapping[str, tuple[int, int] | None]
) -> list[Table]:
    """Tables 5, 6, S6 and S7: the same models beside other published rows.

    Args:
        evaluations: Evaluated models.
        costs: Parameters and FLOPs at inference by name of the model; None where unknown.
    """
    unknown = Cell(note="not known: the run folder holds no export/")
    known = {name: cost for name, cost in costs.items() if cost is not None}
    # the paper counts a multiply-add as one operation
    cells = {name: (Cell(p / 1e6), Cell(flops / 2e9)) for name, (p, flops) in known.items()}
    three = (LINF, L1, L2)
    tables = []
    for name, title, columns, rows in (
        (
            "table_5",
            "MPM by the quality of its part labels (Table 5)",
            (CLEAN, LINF, LINF_X2),
            published.TABLE_5_RECOGNISER,
        ),
        (
            "table_6",
            "Structures of the part branch (Table 6)",
            (PARAMETERS, CLEAN, LINF, LINF_X2),
            published.TABLE_6,
        ),
        (
            "table_s6",
            "Object masks and part masks (Table S6)",
            (CLEAN, *three, AVERAGE),
            published.TABLE_S6,
        ),
        (
            "table_s7",
            "Tiny-ImageNet (Table S7)",
            (PARAMETERS, GFLOPS, CLEAN, LINF, LINF_X2),
            published.TABLE_S7,
        ),
    ):
        threats = three if name == "table_s6" else (LINF, LINF_X2, L1, L2)
        ours = []
        for one in evaluations:
            size, flops = cells.get(one.name, (unknown, unknown))
            other = {PARAMETERS: size, GFLOPS: flops}
            row = tuple(other.get(column) or _cell(one, column, threats) for column in columns)
            ours.append(Row(one.name, one.model, row))
        theirs = [_published(row, columns) for row in rows]
        source = f"{published.SCALE_NOTE} ({published.PAPER})"
        shown = tuple(Column(c, digits=2 if c == GFLOPS else 1) for c in columns)
        tables.append(Table(name, title, CAPTION, shown, (*ours, *theirs), source))
    return tables


def broken_table(evaluations: Sequence[Evaluation]) -> Table | None:
    """Which attack of AutoAttack broke how many images; None where no evaluation says."""
    found = [
        (one.name, threat)
        for one in evaluations
        for threat in one.threats
        if threat.broken_by and threat.attack.startswith("AutoAttack")
    ]
    names = set(chain.from_iterable(threat.broken_by for _, threat in found)) - STEPS.keys()
    known = [name for name in ATTACK_ORDER if name in names]
    order = ["clean", *known, *sorted(names - set(known)), ""]
    rows = []
    for model, threat in found:
        total = sum(threat.broken_by.values())
        cells = [Cell(100 * threat.broken_by.get(name, 0) / total, n=total) for name in order]
        rows.append(Row(f"{model}, {threat.title}", threat.name, tuple(cells)))
    if not rows:
        return None
    columns = tuple(Column(STEPS.get(name, name)) for name in order)
    caption = (
        "Percent of the images that were wrong before any attack, that each attack in turn broke, "
        "and that stand after all of them. Each attack sees only what withstood those left of it."
    )
    return Table("attacks", "Success of each attack", caption, columns, tuple(rows), of="threat")


def parts_table(evaluations: Sequence[Evaluation]) -> Table:
    """Mean IoU of the part maps, clean and adversarial."""
    columns = (Column("clean mIoU"), Column("adversarial mIoU"), Column("parts", 0))
    rows = []
    for one in evaluations:
        if one.parts.missing:
            unmeasured = Cell(note=one.parts.missing)
            rows.append(Row(one.name, one.model, (unmeasured,) * len(columns)))
        for name, scores in one.parts.threats.items():
            miou = (scores.clean_miou, scores.adversarial_miou)
            cells = (*(Cell(100 * value, n=scores.images) for value in miou), Cell(scores.parts))
            rows.append(Row(f"{one.name}, {name}", one.model, cells))
    caption = "Mean IoU in percent of the part maps with the annotations of val images."
    command = "make evaluate PINPP_VAL=FOLDER"
    return Table("parts", "Parts under attack", caption, columns, tuple(rows), command=command)


def _published(row: published.PublishedAccuracy, titles: Sequence[str]) -> Row:
    """A published row; titles that it has no figure for stay empty."""
    values = [getattr(row, FIELDS[title]) if title in FIELDS else None for title in titles]
    return published_row(row.method, row.architecture, values)


def _cell(one: Evaluation, title: str, threats: Sequence[str] = (LINF, LINF_X2, L1, L2)) -> Cell:
    """A cell of a threat; of the average only where all its threats were measured."""
    if title != AVERAGE:
        return one.threat(title)
    values = [one.threat(threat).value for threat in threats]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return Cell(note=f"needs AutoAttack under all {len(values)} published threats")
    # no interval: the threats share their images
    return Cell(sum(known) / len(known))
