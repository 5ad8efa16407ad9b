from pathlib import Path

from pipeline.report.build import build_report
from pipeline.report.reading.runs import read_runs
from pipeline.report.scored_segmenters import COLUMNS, scored_table
from pipeline.runs.metrics import Metrics

COUNTS = {"images": 1200.0, "images_without_results": 3.0}


def test_scores_of_results_are_rows_of_the_report(tmp_path: Path) -> None:
    named = {key: 0.1 * place for place, key in enumerate(COLUMNS.values())}
    Metrics(named | COUNTS).write(tmp_path / "segmenter_scores" / "vlpart")
    plain = {"agnostic_segm_AP": 0.256, "agnostic_segm_AP50": -1.0, "best_overlap_mIoU": 0.5}
    counts = COUNTS | {"images_without_results": 0.0}
    Metrics(plain | counts).write(tmp_path / "segmenter_scores" / "sam")
    sam, vlpart = scored_table(read_runs(tmp_path).scored_segmenters).rows
    assert (sam.name, sam.detail) == ("sam", "1,200 images")
    assert (vlpart.name, vlpart.detail) == ("vlpart", "1,200 images, 3 without results")
    assert [cell.value for cell in vlpart.cells] == [100 * value for value in named.values()]
    by_title = dict(zip(COLUMNS, sam.cells, strict=True))
    assert by_title["AP, any category"].value == 25.6
    assert "nothing of the kind" in by_title["AP50, any category"].note
    assert "no categories" in by_title["AP"].note
    build_report(tmp_path)
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Segmenters of any make" in page
    assert (tmp_path / "report" / "tables" / "scored_segmenters.csv").is_file()


def test_without_scores_the_command_is_told() -> None:
    (row,) = scored_table({}).rows
    assert all("make score-segmenter" in cell.note for cell in row.cells)
