from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.errors import UserError
from datamodules.files.json_files import write_json
from datamodules.images.imagenet_folder import list_images
from pipeline import published
from pipeline.report.build import build_report
from pipeline.report.cells import Cell
from pipeline.report.curves import draw_curves, group_curves
from pipeline.report.reading.curves import read_curves
from pipeline.report.reading.evaluations import read_evaluation
from pipeline.report.reading.facts import label_facts, stage_facts
from pipeline.report.reading.segmenter import category_tables, segmenter_rows
from pipeline.report.robustness_tables import result_table
from pipeline.runs.metrics import Metrics
from tests.pipeline.report.report_runs import write_events, write_runs

AUTOATTACK = "AutoAttack l∞ 4/255"


@pytest.fixture(scope="module")
def runs(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_runs(tmp_path_factory.mktemp("runs"), shapes_root)


class Page(HTMLParser):
    """Collects what a browser would fetch, and the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href") and value and not value.startswith("#"):
                self.fetched.append(value)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_is_whole_and_self_contained(runs: Path, shapes_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    folders = {"imagenet": shapes_root / "imagenet", "pinpp": shapes_root / "pinpp"}
    assert build_report(runs, out, **folders) == out
    page = Page(out)
    assert len(page.fetched) > 20
    assert all(address.startswith("data:") for address in page.fetched)
    assert not {"link", "iframe", "object", "embed"} & set(page.tags)
    assert page.tags.count("script") == 1  # the one that sorts; the manifest's stays text
    assert "alert(1)" in page.text
    for words in ("37.1", "64.2", "46.3", "79.4", "54.0", "n=16", "0.713"):
        assert words in page.text
    for words in ("41.2", "53.7", published.AP_SCALE_NOTE, "40.7", "58.6", "object9 : part19"):
        assert words in page.text
    for words in (published.SCALE_NOTE, "39.1", "deadbeef", "f00dfeed", "2.11.0", "(running)"):
        assert words in page.text
    vocabulary = PartVocabulary.from_pinpp(shapes_root / "pinpp", shapes_root / "imagenet")
    assert sum(name.split(":")[1] in page.text for name in vocabulary.parts) > 6
    for words in ("folder X does not exist", "WARNING: masked", "43.2", "0.543", "12.3", "60.9"):
        assert words in page.text
    assert "stage1_segmenter: not run" not in page.text


def test_worst_and_best_categories(runs: Path, tmp_path: Path) -> None:
    parts, objects = category_tables(runs / "stage1_segmenter", count=3)
    assert [name for name, _ in parts.groups] == ["worst", "best"]
    named = [[row["part"] for row in rows] for _, rows in parts.groups]
    assert named == [["part0", "part1", "part2"], ["part19", "part18", "part17"]]
    assert (parts.total, objects.total) == (19, 10)
    assert "object_AP_filtered" in objects.columns.values()
    # no category is shown twice
    few, _ = category_tables(runs / "stage1_segmenter", count=12)
    assert [len(rows) for _, rows in few.groups] == [12, 7]
    assert category_tables(tmp_path) == []
    write_json(tmp_path / "per_category.json", {"parts": []})
    with pytest.raises(ValueError, match=r"per_category\.json lacks 'objects'"):
        category_tables(tmp_path)


def test_ap_of_the_run_in_percent() -> None:
    assert segmenter_rows({"epoch": 3.0}) == []
    (row,) = segmenter_rows({"segm_AP_filtered": 0.25, "segm_APl_filtered": -1.0})
    assert row.filter
    assert row.values["AP"] == 25
    assert row.values["AP large"] is None


def test_page_says_what_has_not_run(tmp_path: Path) -> None:
    page = Page(build_report(tmp_path))
    assert "Nothing has run in this folder. make demo runs everything" in page.text
    assert "begin with make stage1-segmenter." in page.text
    wanted = ("stage1-segmenter", "stage2-pseudolabels", "stage3-mpm", "evaluate", "generalisation")
    for words in wanted:
        assert f": make {words}" in page.text
    assert "this run" not in page.text
    # nothing but the heading of the list is left of the sections
    assert page.tags.count("h2") == 1
    assert (tmp_path / "report" / "index.html").is_file()


def test_page_without_images_says_why(runs: Path, shapes_root: Path, tmp_path: Path) -> None:
    out = build_report(
        runs, tmp_path / "a.html", imagenet=tmp_path / "gone", pinpp=shapes_root / "pinpp"
    )
    assert str(tmp_path / "gone") in Page(out).text


def test_named_models_only(runs: Path, tmp_path: Path) -> None:
    asked = ["stage3_mpm", "stage3_other", "resnet50.a1_in1k"]
    out = build_report(runs, tmp_path / "a.html", models=asked)
    text = Page(out).text
    assert "stage3_vanilla" not in text
    assert f"stage3_other: not run, make evaluate MODEL={runs}/stage3_other" in text
    assert "not run, make evaluate MODEL=resnet50.a1_in1k" in text


def test_missing_runs_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone is not a folder: run make demo"):
        build_report(tmp_path / "gone")


def test_damaged_summary_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "evaluate" / "model"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text("{")
    with pytest.raises(UserError, match=r"summary\.json is damaged"):
        build_report(tmp_path)


def test_same_threat_of_run_and_paper_shares_a_column(runs: Path) -> None:
    table = result_table([read_evaluation(runs / "evaluate" / "stage3_mpm")])
    titles = [column.title for column in table.columns]
    assert titles[:3] == ["clean", "PGD20 l∞ 4/255", AUTOATTACK]
    column = titles.index(AUTOATTACK)
    ours, mpm = table.rows[0], table.rows[-1]
    assert not ours.published
    assert mpm.published
    assert ours.cells[column] == Cell(*map(pytest.approx, (54, 44, 64)), 16)
    assert mpm.cells[column] == Cell(39.1)
    assert mpm.cells[1] is None


def test_published_averages_are_those_of_their_rows() -> None:
    for row in published.TABLE_2:
        mean = (row.linf + row.linf_x2 + row.l1 + row.l2) / 4
        assert row.average == pytest.approx(mean, abs=0.051)
        assert "Table 2" in row.source
    assert published.TABLE_6[3].linf == published.TABLE_2[-1].linf
    assert published.TABLE_5_RECOGNISER[-1].clean == published.TABLE_2[-1].clean


def test_summary_of_a_stage_tells_the_attack_from_the_optimiser(runs: Path) -> None:
    facts = stage_facts(runs / "stage1_segmenter", "stage1_segmenter")
    summary = dict(facts.summary)
    assert summary == {"max_epochs": "3", "batch_size": "8", "eps": "0.01569"} | {
        "lr": "0.001",
        "seed": "0",
    }


def test_label_facts_count_rows(runs: Path, shapes_root: Path) -> None:
    facts = label_facts(runs / "stage2_pseudolabels")
    assert facts is not None
    total = len(list_images(shapes_root / "imagenet" / "train"))
    assert (facts.images, facts.errors) == (total, 1)
    assert facts.labelled + facts.empty + facts.errors == total
    assert facts.empty >= 1
    assert facts.instances >= facts.labelled


def test_curves_of_a_resumed_run_are_joined(tmp_path: Path) -> None:
    write_events(tmp_path, ["train/loss", "val/loss"])
    write_events(tmp_path, ["train/loss", "val/loss"], first=20)
    curves = read_curves(tmp_path)
    assert np.array_equal(curves["train/loss"].steps, np.arange(40))
    assert curves["val/loss"].values[0] == pytest.approx(2.0)
    svg = draw_curves(curves)
    assert svg.startswith("data:image/svg+xml;base64,")
    assert svg == draw_curves(curves)


def test_curves_of_one_quantity_share_axes(runs: Path) -> None:
    groups = group_curves(read_curves(runs / "stage1_segmenter"))
    assert list(groups) == ["loss", "segm_AP"]
    assert list(groups["segm_AP"]) == ["val/segm_AP", "val/segm_AP_filtered"]


def test_no_events_no_curves(tmp_path: Path) -> None:
    assert read_curves(tmp_path) == {}


def test_page_shows_object_segmentation_where_a_run_detects_objects(tmp_path: Path) -> None:
    parts = {"object_AP": 0.3125, "object_AP50": 0.5, "segm_AP": 0.25}
    Metrics(parts).write(tmp_path / "stage1_segmenter")
    page = Page(build_report(tmp_path))
    assert "Object segmentation" not in page.text
    alone = {"detected_object_AP": 0.4375, "detected_object_APs": -1.0}
    Metrics(alone).write(tmp_path / "stage1_objects")
    page = Page(build_report(tmp_path))
    for words in ("Object segmentation", "31.2", "50.0", "43.8", "finds no parts"):
        assert words in page.text
    table = (tmp_path / "report" / "tables" / "objects.csv").read_text()
    assert "stage1_objects" in table
    assert "stage1_segmenter" in table
