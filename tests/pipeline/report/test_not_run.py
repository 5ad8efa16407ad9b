from pathlib import Path

from pipeline.report import robustness_tables as robust
from pipeline.report.build import build_report
from pipeline.report.cells import Cell, Column, Row, Table, published_row
from pipeline.report.not_run import fold, other_entries, stage_entries
from pipeline.report.reading.evaluations import read_evaluation
from tests.pipeline.report.report_runs import write_runs


def table(name: str, *cells: Cell) -> Table:
    rows = (Row("m", "", cells), published_row("theirs", "", (1.0,) * len(cells)))
    columns = tuple(Column(str(place)) for place in range(len(cells)))
    return Table(name, f"Title {name}", "", columns, rows, command=f"make {name}")


def test_tables_without_a_measured_cell_become_entries() -> None:
    empty = table("a", Cell(note="not run: see make a"), Cell(note="no folder given"))
    full = table("b", Cell(2.0), Cell(note="no folder given"))
    kept, entries = fold({"one": empty, "two": full, "some": [empty, full], "none": None})
    assert kept == {"one": None, "two": full, "some": [full], "none": None}
    assert [(e.title, e.command, e.reason) for e in entries] == [
        ("Title a", "make a", "no folder given")
    ] * 2
    assert entries[0].table is empty


def test_lines_of_stages_are_entries() -> None:
    (entry,) = stage_entries(["stage1_segmenter: not run, make stage1-segmenter"])
    assert (entry.title, entry.command) == ("stage1_segmenter", "make stage1-segmenter")
    (entry,) = other_entries(["gallery"], "not shown: X does not exist")
    assert entry.reason == "X does not exist"


def test_the_page_folds_what_has_no_figure(shapes_root: Path, tmp_path: Path) -> None:
    runs = write_runs(tmp_path, shapes_root)
    before, _, after = build_report(runs).read_text().partition('<h2 id="missing">')
    words = "Parts under attack: <code>make evaluate PINPP_VAL=FOLDER</code>"
    assert words in after
    assert words not in before
    assert "no part annotations of val images: give PINPP_VAL=" in after
    assert 'id="table_s5"' in before  # measured, so it stays in its section
    assert 'id="table_s5"' not in after
    subset = "125 categories of PartImageNet (Table S2)"
    assert f"{subset}: <code>make evaluate SUBSET=pin125 SUBSETS=FILE</code>" in after


def test_headline_has_few_columns_of_the_whole_table(shapes_root: Path, tmp_path: Path) -> None:
    one = read_evaluation(write_runs(tmp_path, shapes_root) / "evaluate" / "stage3_mpm")
    whole = robust.result_table([one])
    headline = robust.headline_table(whole, "PGD20 l∞ 4/255")
    titles = [column.title for column in headline.columns]
    assert titles == ["clean", "PGD20 l∞ 4/255", robust.LINF, robust.LINF_X2, robust.L1, robust.L2]
    assert len(headline.columns) < len(whole.columns)
    assert [row.name for row in headline.rows] == [row.name for row in whole.rows]
    assert headline.rows[0].cells[0] == one.threat("clean")
    assert headline.rows[-1].cells[2] == Cell(39.1)
    assert [c.title for c in robust.headline_table(whole, robust.LINF).columns] == [
        *("clean", robust.LINF, robust.LINF_X2, robust.L1, robust.L2)
    ]
