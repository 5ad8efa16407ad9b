import csv
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from datamodules.corruptions import CORRUPTIONS
from datamodules.evaluation.corruption_errors import ALEXNET_ERRORS
from datamodules.evaluation.corruption_sets import CORRUPTIONS_3D
from datamodules.files.json_files import write_json
from modules.weights.classifier_folder import load_classifier
from pipeline import published
from pipeline.evaluation.generalisation_records import mean_rows
from pipeline.evaluation.summaries import (
    BoxPrecision,
    DetectionResults,
    GeneralisationSummary,
    HumanAlignment,
    SetRow,
    ThreatRow,
)
from pipeline.export.inference_cost import inference_cost
from pipeline.report import generalisation_tables as general
from pipeline.report import robustness_tables as robust
from pipeline.report.build import build_report
from pipeline.report.cells import Cell, Column, Row, Table, mark, published_row
from pipeline.report.exports import DASH, FORMATS, to_csv, to_latex, to_markdown
from pipeline.report.reading.evaluations import (
    Evaluation,
    evaluation_folders,
    read_evaluation,
)
from pipeline.report.reading.runs import read_runs
from pipeline.runs.manifest import Manifest
from tests.modules.tiny_classifier import export_tiny_classifier
from tests.pipeline.report.report_runs import (
    summary_of,
    write_alignment,
    write_generalisation,
    write_runs,
)


def threat(
    name: str,
    accuracy: float,
    norm: str | None = "linf",
    eps: float = 4 / 255,
    broken_by: dict[str, int] | None = None,
) -> ThreatRow:
    ends = [accuracy - 0.01, accuracy + 0.01]
    return ThreatRow(name, norm, eps, accuracy, ends, 50, broken_by or {})


def evaluate(folder: Path, threats: list[ThreatRow], settings: dict | None = None) -> Evaluation:
    summary_of(str(folder), threats).write(folder)
    if settings is not None:
        write_json(folder / "records" / "settings.json", {"threats": settings})
    return read_evaluation(folder)


@pytest.fixture
def table() -> Table:
    rows = (
        Row("a & b_1", "w", (Cell(61.25, 50.0, 70.04, 9), Cell(note="no folder X_1"))),
        Row("c|d", "", (Cell(note="no folder X_1"), Cell(note="50 % lost"))),
        published_row("theirs", "", (12.0, None)),
    )
    return Table("t", "Title", "In 95 %", (Column("l∞ 4/255"), Column("k", 3)), rows, "paper")


def test_each_reason_has_one_mark(table: Table) -> None:
    assert table.notes == {"a": "no folder X_1", "b": "50 % lost"}
    marks = [[table.mark_of(cell) for cell in row.cells] for row in table.rows]
    assert marks == [["", "a"], ["a", "b"], ["", ""]]
    assert [mark(place) for place in (0, 25, 26, 27, 52)] == ["a", "z", "aa", "ab", "ba"]
    with pytest.raises(ValueError, match="row x has 1 cells for 2 columns"):
        Table("t", "", "", table.columns, (Row("x", "", (None,)),))


def test_csv_holds_everything(table: Table) -> None:
    rows = list(csv.DictReader(StringIO(to_csv(table))))
    assert [row["model"] for row in rows] == ["a & b_1", "c|d", "theirs"]
    assert [float(rows[0][f"l∞ 4/255{part}"]) for part in ("", " low", " high", " n")] == [
        *(61.25, 50.0, 70.04, 9)
    ]
    assert rows[0]["k note"] == "no folder X_1"
    assert [row["published"] for row in rows] == ["no", "no", "yes"]


def test_markdown_has_whole_rows(table: Table) -> None:
    lines = to_markdown(table).splitlines()
    body = [line.replace("\\|", "") for line in lines if line.startswith("|")]
    assert [line.count("|") for line in body] == [4] * 5
    assert f"61.2 (50.0{DASH}70.0)" in body[2]
    assert "(b) 50 % lost" in lines


def test_latex_is_escaped_and_closed(table: Table) -> None:
    text = to_latex(table)
    assert r"a \& b\_1 & 61.2 {\scriptsize [50.0, 70.0]} & --$^{a}$ \\" in text
    assert r"l$_\infty$ 4/255" in text
    assert r"50 \% lost" in text
    for name in ("table", "tabular"):
        assert text.count(f"\\begin{{{name}}}") == text.count(f"\\end{{{name}}}") == 1
    assert text.count("{") == text.count("}")


def test_threats_go_by_their_settings_and_not_by_their_name(tmp_path: Path) -> None:
    names = ("linf_4", "l2_2", "quick", "parts_alone", "checked", "seen")
    threats = [threat(name, 0.5) for name in names]
    threats[1] = threat("l2_2", 0.5, "l2", 2.0)
    settings = {
        "linf_4": {"attack": "AutoAttack", "version": "standard", "through": "forward"},
        "l2_2": {"attack": "AutoAttack", "version": "standard"},
        "quick": {"attack": "AutoAttack", "version": "custom", "attacks": ["apgd-ce"]},
        "parts_alone": {"attack": "PartPGD", "steps": 50},
        "checked": {"attack": "PGD", "steps": 50},
        "seen": {"attack": "AutoAttack", "version": "standard", "through": "surrogate"},
    }
    one = evaluate(tmp_path / "model", threats, settings)
    assert [found.title for found in one.threats] == [
        "AutoAttack l∞ 4/255",
        "AutoAttack l2 2",
        "AutoAttack-apgd-ce l∞ 4/255",
        "PartPGD (parts_alone) l∞ 4/255",
        "PGD50 l∞ 4/255",
        "AutoAttack (surrogate) l∞ 4/255",
    ]
    table = robust.result_table([one])
    mpm = dict(zip((column.title for column in table.columns), table.rows[-1].cells, strict=True))
    assert (mpm["AutoAttack l∞ 4/255"], mpm["AutoAttack l2 2"]) == (Cell(39.1), Cell(24.3))


def test_threats_of_one_title_keep_apart(tmp_path: Path) -> None:
    settings = {name: {"attack": "PGD", "steps": 9} for name in ("a", "b")}
    one = evaluate(tmp_path / "m", [threat("a", 0.5), threat("b", 0.25)], settings)
    assert [found.title for found in one.threats] == ["PGD9 l∞ 4/255", "PGD9 (b) l∞ 4/255"]


def test_average_needs_all_its_threats(tmp_path: Path) -> None:
    balls = {"linf": 4 / 255, "l1": 75.0, "l2": 2.0}
    threats = [threat(f"aa_{norm}", 0.3, norm, eps) for norm, eps in balls.items()]
    one = evaluate(tmp_path / "m", threats)
    average = robust.result_table([one]).rows[0].cells[-1]
    assert average is not None
    assert (average.value, average.note) == (None, "needs AutoAttack under all 4 published threats")
    s6 = next(t for t in robust.further_tables([one], {}) if t.name == "table_s6")
    assert s6.rows[0].cells[-1] == Cell(pytest.approx(30))
    # the printed averages are those of the printed threats
    for row in s6.published:
        linf, l1, l2, average = (cell.value for cell in row.cells[1:] if cell and cell.value)
        assert average == pytest.approx((linf + l1 + l2) / 3, abs=0.06)


def test_attacks_are_in_their_order(tmp_path: Path) -> None:
    broken = {"": 5, "apgd-ce": 2, "apgd-t": 1, "clean": 10, "square": 2}
    one = evaluate(tmp_path / "m", [threat("autoattack", 0.25, broken_by=broken)])
    table = robust.broken_table([one])
    assert table is not None
    titles = [column.title for column in table.columns]
    assert titles == ["wrong before", "apgd-ce", "apgd-t", "square", "standing"]
    assert [cell.value for cell in table.rows[0].cells if cell] == [50, 10, 5, 10, 25]
    alone = threat("pgd20", 0.5, broken_by={"": 1, "PGD": 1})
    assert robust.broken_table([evaluate(tmp_path / "n", [alone])]) is None


def test_corruptions_are_means_of_their_severities(tmp_path: Path) -> None:
    rows = write_generalisation(tmp_path / "m")
    one = read_evaluation(tmp_path / "m")
    table = general.corruption_table([one])
    values = np.array([row.accuracy for row in rows[:75]], dtype=float).reshape(15, 5).mean(1)
    shown = [cell.value for cell in table.rows[0].cells if cell]
    assert shown[2:] == pytest.approx(100 * values)
    assert shown[0] == pytest.approx(100 * values.mean())
    errors = (1 - values) / np.array([ALEXNET_ERRORS[name] for name in CORRUPTIONS])
    assert shown[1] == pytest.approx(100 * errors.mean())
    (severities,) = general.severity_tables([one])
    first = [cell.value for cell in severities.rows[0].cells if cell]
    assert first == pytest.approx([100 * float(row.accuracy or 0) for row in rows[:5]])


def test_what_is_missing_says_why(tmp_path: Path) -> None:
    write_generalisation(tmp_path / "m")
    attacked = evaluate(tmp_path / "n", [threat("clean", 0.5, None, 0)])
    measured = read_evaluation(tmp_path / "m")
    shifts = general.shift_table([measured, attacked])
    ours, other = shifts.measured
    assert ours.cells[0] == Cell(note="folder X does not exist")
    assert ours.cells[1].value is not None
    assert ours.cells[3].note.startswith("only 2 of its 17 sets were measured, their mean is")
    assert ours.cells[4].note == "the mean needs all columns"
    assert other.cells[0].note == "not run: no generalisation sets, see make evaluate"
    assert robust.result_table([measured]).rows[0].cells[0].note.startswith("not run: no attack")
    s2, s3 = general.subset_tables([measured])
    assert (s2.rows[0].cells[0].note, s3.rows[0].cells[0].note) == ("printed nowhere", "")
    bias = general.bias_table([measured]).rows[0]
    assert bias.cells[4] == Cell(pytest.approx(43.21))
    assert "stylised copy" in bias.cells[1].note


def test_attacks_on_subsets_stand_in_their_columns(tmp_path: Path) -> None:
    folder = tmp_path / "evaluate" / "m"
    names = ("linf_4", "linf_8")
    threats = [threat("clean", 0.75, None, 0), threat(names[0], 0.5)]
    threats.append(threat(names[1], 0.25, eps=8 / 255))
    settings = {name: {"attack": "AutoAttack"} for name in names}
    evaluate(folder / "subsets" / "pin11", threats, settings)
    assert evaluation_folders(tmp_path) == [folder]
    s2, s3 = general.subset_tables([read_evaluation(folder)])
    clean, *attacked = s3.rows[0].cells
    assert (clean, attacked) == (Cell(75, 74, 76, 50), [Cell(50, 49, 51, 50), Cell(25, 24, 26, 50)])
    assert s2.rows[0].cells[1] == Cell(note="not run: make evaluate SUBSET=pin125")
    write_generalisation(folder)
    one = read_evaluation(folder)
    _, s3 = general.subset_tables([one])
    assert s3.rows[0].cells == (one.measured_set("pin11"), *attacked)
    assert not one.threats


def test_a_subset_in_the_place_of_all_classes_is_said(tmp_path: Path) -> None:
    records = tmp_path / "m" / "records" / "settings.json"
    write_json(records, {"subset": "pin11 sha256:00", "threats": {}})
    summary_of("m", []).write(tmp_path / "m")
    (line,) = read_evaluation(tmp_path / "m").warnings
    assert line.startswith("attacked within the classes of pin11 alone")


def test_people_and_detectors(tmp_path: Path) -> None:
    assert general.detection_table({}).notes == {"a": "not run: make downstream-detection"}
    precisions = {"clean": BoxPrecision(0.1234, 0.25), "A_cls": BoxPrecision(-1.0, -1.0)}
    DetectionResults(precisions, 8).write(tmp_path / "downstream_detection_random" / "test")
    row = general.detection_table(read_runs(tmp_path).detectors).measured[0]
    assert row.name == "downstream_detection_random"
    assert row.cells[0] == Cell(pytest.approx(12.34))
    assert [cell.note for cell in row.cells[2:] if cell] == ["A_cls: not measured"] * 2 + [
        "A_reg: not measured"
    ] * 2
    write_alignment(tmp_path)
    rows = HumanAlignment.read(tmp_path).rows
    table = general.human_table([], {one.name: one for one in rows})
    assert [row.name for row in table.measured] == ["humans", "stage3_mpm"]
    assert table.measured[0].cells[2] == Cell(0.1987)
    assert len(table.published) == len(published.TABLE_S4)


def test_cost_of_a_deployed_model(tmp_path: Path) -> None:
    run = export_tiny_classifier(tmp_path, num_classes=4)
    network = load_classifier(run)
    expected = 0

    def count(layer: nn.Conv2d | nn.Linear, _: Any, output: torch.Tensor) -> None:
        nonlocal expected
        expected += 2 * output.numel() * layer.weight[0].numel()

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    parameters, flops = inference_cost(run, 32)
    assert parameters == sum(parameter.numel() for parameter in network.parameters())
    assert flops == expected


def test_the_cost_is_that_of_the_model_whatever_its_evaluation_is_called(tmp_path: Path) -> None:
    run = tmp_path / "stage3_mpm"
    export_tiny_classifier(run, num_classes=4)
    folder = tmp_path / "evaluate" / "stage3_mpm_checks"
    summary_of(str(run), [threat("clean", 0.5, None, 0.0)]).write(folder)
    Manifest(folder.name, config={"data": {"init_args": {"image_size": 32}}}).write(folder)
    build_report(tmp_path)
    row, *_ = csv.DictReader((tmp_path / "report" / "tables" / "table_s7.csv").open())
    assert row["model"] == "stage3_mpm_checks"
    assert float(row["parameters, M"]) == inference_cost(run, 32)[0] / 1e6


def test_costs_are_shown_in_millions_and_multiply_adds() -> None:
    one = Evaluation("x", Path("x"), "x", (), {}, {}, {}, ())
    tables = {t.name: t for t in robust.further_tables([one], {"x": (23_400_000, 8_600_000_000)})}
    assert tables["table_s7"].measured[0].cells[:2] == (Cell(23.4), Cell(4.3))
    unknown = robust.further_tables([one], {"x": None})[-1].measured[0].cells[1]
    assert "export" in unknown.note


def test_every_table_lies_beside_the_page(shapes_root: Path, tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", shapes_root)
    page = build_report(runs, models=["stage3_vanilla", "stage3_mpm"]).read_text()
    files = {path.name for path in (runs / "report" / "tables").iterdir()}
    stems = {name.rsplit(".", 1)[0] for name in files}
    assert files == {f"{stem}.{suffix}" for stem in stems for suffix in FORMATS}
    wanted = {f"table_{name}" for name in ("2", "3", "4", "5", "6", "s2", "s3", "s4", "s5", "s6")}
    wanted |= {"table_s7", "general_robustness", "attacks", "parts", "segmenter"}
    assert stems >= wanted | {"din", "severities_stage3_mpm", "categories_part"}
    assert all(f'download="{name}"' in page for name in files)
    table = (runs / "report" / "tables" / "table_2.md").read_text().splitlines()
    order = [line.split("|")[1].strip() for line in table if line.startswith("| stage3")]
    assert order == ["stage3_vanilla", "stage3_mpm"]


def test_corruptions_in_depth_have_a_mean_error_and_no_mce(tmp_path: Path) -> None:
    sets = [f"{name}/{severity}" for name in CORRUPTIONS_3D for severity in range(1, 6)]
    shares = [0.2 + place / 100 for place in range(60)]
    rows = [
        SetRow(name, "corruptions_3d", share, (share - 0.05, share + 0.05), 100)
        for name, share in zip(sets, shares, strict=True)
    ]
    run = tmp_path / "m" / "generalisation"
    GeneralisationSummary("m", rows, mean_rows(rows, run)).write(run)
    one = read_evaluation(tmp_path / "m")
    table = general.corruption_3d_table([one])
    (row,) = table.rows
    values = [cell.value for cell in row.cells if cell]
    assert values[0] == pytest.approx(100 * sum(shares) / 60)
    assert values[1] == pytest.approx(100 - 100 * sum(shares) / 60)
    assert values[2] == pytest.approx(100 * sum(shares[:5]) / 5)
    assert not general.corruption_table([one]).has_values
    assert general.shift_table([one]).columns == general.shift_table([]).columns
    missing = [SetRow(name, "corruptions_3d", missing="no folder given") for name in CORRUPTIONS_3D]
    GeneralisationSummary("m", missing, []).write(tmp_path / "n" / "generalisation")
    table = general.corruption_3d_table([read_evaluation(tmp_path / "n")])
    assert table.reasons == ["no folder given"]
