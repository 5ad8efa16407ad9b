from pathlib import Path

import pytest

from pipeline.report.build import build_report
from pipeline.report.cells import Cell
from pipeline.report.few_shot_tables import few_shot_differences, few_shot_table
from pipeline.report.reading.runs import read_runs
from tests.pipeline.report.report_runs import write_few_shot


def test_models_and_their_difference(tmp_path: Path) -> None:
    write_few_shot(tmp_path / "few_shot")
    runs = read_runs(tmp_path)
    table = few_shot_table(runs.few_shot)
    titles = ["image, 1-shot, nearest mean", "box, 5-shot, linear probe"]
    assert [column.title for column in table.columns] == titles
    mpm, vanilla = table.rows
    assert (mpm.name, vanilla.name) == ("stage3_mpm", "stage3_vanilla")
    expected = [(61.25, 60.0, 62.5), (73.75, 72.5, 75.0)]
    assert [(c.value, c.low, c.high) for c in mpm.cells if c] == [*map(pytest.approx, expected)]
    assert vanilla.cells == (mpm.cells[0], Cell(note="not measured: no boxes, or other --shots"))
    assert mpm.detail == (
        "5-way, 15 queries, 600 episodes; features: its own, at length 1; 20 classes, trained on 3 "
        "of them"
    )
    assert vanilla.detail.endswith("20 classes, trained on how many of them is not recorded")
    differences = few_shot_differences(runs.few_shot_differences)
    assert differences is not None
    (row,) = differences.rows
    assert row.name == "stage3_mpm less stage3_vanilla"
    assert row.cells == (Cell(*map(pytest.approx, (-3.12, -5.0, -1.25))),)
    named = read_runs(tmp_path, ["stage3_mpm"])
    assert list(named.few_shot) == ["stage3_mpm"]
    assert named.few_shot_differences == []


def test_without_a_run_the_page_says_how(tmp_path: Path) -> None:
    table = few_shot_table({})
    assert not table.has_values
    assert table.notes == {"a": "not run: make few-shot"}
    assert len(table.columns) == 8
    assert few_shot_differences([]) is None
    _, _, missing = build_report(tmp_path).read_text().partition('<h2 id="missing">')
    assert "Few-shot classification: <code>make few-shot MODEL=FOLDER" in missing
    write_few_shot(tmp_path / "few_shot")
    page, _, missing = build_report(tmp_path).read_text().partition('<h2 id="missing">')
    assert "Few-shot classification" not in missing
    for words in ('<h2 id="few-shot">', "61.2", "-3.1", "few_shot_differences"):
        assert words in page
    assert (tmp_path / "report" / "tables" / "few_shot_differences.csv").is_file()
