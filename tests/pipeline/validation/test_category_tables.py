import json
from pathlib import Path

import pytest

from pipeline.validation.category_tables import Row, extremes, print_worst

FIGURES = ("AP", "AP50", "AP_filtered", "AP50_filtered")


def row(part: str, value: float | None) -> Row:
    return {"object": "bird", "part": part, "images": 3, "masks": 4} | dict.fromkeys(FIGURES, value)


ROWS = [row("beak", 0.25), row("head", None), row("leg", 0.125), row("tail", 0.75)]


def test_extremes_leave_out_what_was_not_measured_and_never_overlap() -> None:
    def names(rows: list[Row]) -> list[str]:
        return [row["part"] for row in rows]

    assert [names(rows) for rows in extremes(ROWS, 1)] == [["leg"], ["tail"]]
    assert [names(rows) for rows in extremes(ROWS, 2)] == [["leg", "beak"], ["tail"]]
    assert [names(rows) for rows in extremes(ROWS, 9)] == [["leg", "beak", "tail"], []]


def test_equal_ap_is_ranked_by_ap50() -> None:
    worse = row("eye", 0.125) | {"AP50_filtered": 0.0}
    assert extremes([*ROWS, worse], 1)[0] == [worse]


def test_printed_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"parts": ROWS}))
    print_worst(path, 2)
    printed = capsys.readouterr().out
    assert "12.5" in printed
    assert printed.index("leg") < printed.index("beak")
    assert "tail" not in printed
    path.write_text(json.dumps({"parts": [row("head", None)]}))
    print_worst(path, 2)
    assert capsys.readouterr().out == ""
