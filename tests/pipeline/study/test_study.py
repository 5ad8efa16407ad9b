"""The small-scale study: its statistics, its page, and two tiny rows from end to end."""

import csv
import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from modules.weights.classifier_folder import load_classifier
from pipeline.__main__ import main
from pipeline.runs.manifest import Manifest
from pipeline.runs.stages import CONFIGS
from pipeline.study.commands import Step
from pipeline.study.document import write_document
from pipeline.study.plot import draw_study
from pipeline.study.processes import Processes
from pipeline.study.results import Result
from pipeline.study.rows import CLAIMS, FAST, ROWS, chosen_rows
from tests.pipeline.commands import PROJECT

EVALUATION = """
model:
  init_args:
    threats:
      clean: {class_path: modules.attacks.threats.Clean}
      apgd_4:
        class_path: modules.attacks.threats.APGD
        init_args: {eps: 0.0157, steps: 2}
data:
  init_args:
    images: {clean: 12, apgd_4: 6}
    chunk_size: 6
    image_size: 32
    resize: 32
trainer:
  accelerator: cpu
"""


def right(share: float, images: int = 100) -> dict[str, bool]:
    return {f"cat/{i}.png": i < share * images for i in range(images)}


def results_of(**accuracies: list[float]) -> list[Result]:
    titles = {row.name: row.title for row in ROWS}
    return [
        Result(name, titles[name], seed, None, {"clean": right(value)}, 7)
        for name, values in accuracies.items()
        for seed, value in enumerate(values)
    ]


def test_rows_name_overlays_that_exist_and_claims_name_rows() -> None:
    overlays = {path.stem for path in (CONFIGS / "stage3_mpm").glob("*.yaml")}
    assert {name for row in ROWS for name in row.overlays} <= overlays
    names = {row.name for row in ROWS}
    assert {name for claim in CLAIMS for name in (claim.better, claim.worse)} <= names
    assert {name for pair in FAST for name in pair} <= names
    with pytest.raises(ValueError, match="unknown rows sv4"):
        chosen_rows(["sv4"])


def test_weights_are_not_chosen_by_the_images_that_they_are_tested_on() -> None:
    def trainer(*files: str) -> dict[str, int]:
        return {
            key: value
            for file in files
            for key, value in yaml.safe_load((CONFIGS / file).read_text())["trainer"].items()
        }

    small = trainer("stage3_mpm/small.yaml", "study/stage3_mpm.yaml")
    photographs = trainer("stage3_mpm/lite0.yaml", "study/photographs/stage3_mpm.yaml")
    shapes_twice = trainer("stage3_mpm/small.yaml", "study/shapes_twice/stage3_mpm.yaml")
    for settings in (small, photographs, shapes_twice):
        assert settings["check_val_every_n_epoch"] == settings["max_epochs"]
    assert shapes_twice["max_epochs"] == 2 * small["max_epochs"]


def test_page_shows_what_was_not_run_and_keeps_notes(tmp_path: Path) -> None:
    rows = chosen_rows(["vanilla", "mpm", "sv1"])
    results = [*results_of(vanilla=[0.5, 0.54], mpm=[0.6, 0.62]), Result("sv1", "SV1", 0)]
    page = tmp_path / "study_shapes.md"
    write_document(page, "shapes", "make study", results, rows)
    page.write_text(page.read_text() + "\nWhy: too few images.\n")
    write_document(page, "shapes", "make study", results, rows)
    text = page.read_text()
    assert text.count("Why: too few images.") == 1
    assert re.search(r"\| SV1 \| 0 \| not run \|", text)
    assert re.search(r"\| MPM \(SV3\) \| 2 \| 61.0 ± \d+.\d \| 7 \|", text)
    assert re.search(r"\| found with a power of 80 %.* \|  \| \d+.\d \|", text)
    assert "| 67.8 | 39.1 | 13.6 | Table 2 |" in text
    draw_study(results, rows, tmp_path / "study_shapes.png")
    assert Image.open(tmp_path / "study_shapes.png").size[0] > 300


def test_page_says_what_fast_rows_lose(tmp_path: Path) -> None:
    page, rows = tmp_path / "study_shapes.md", chosen_rows(["vanilla", "mpm", "mpm_fast"])
    accuracies = {"vanilla": [0.5] * 2, "mpm": [0.6] * 2, "mpm_fast": [0.6] * 2}
    write_document(page, "shapes", "make study", results_of(**accuracies), rows)
    table = page.read_text().partition("## At a part of the cost")[2]
    assert "| MPM, fast - MPM (SV3) | not more (+0.0 ± 0.0) |" in table
    assert "vanilla AT, fast" not in table
    write_document(page, "shapes", "make study", results_of(mpm=[0.6] * 2), rows[:2])
    assert "part of the cost" not in page.read_text()


def test_a_study_in_use_is_refused(tmp_path: Path) -> None:
    with (
        Processes(tmp_path, 1),
        pytest.raises(ValueError, match="in use by a study that still runs"),
    ):
        Processes(tmp_path, 1)
    with Processes(tmp_path, 1):
        pass


def test_a_step_made_from_other_inputs_is_refused(tmp_path: Path) -> None:
    for name in ("labels", "run"):
        (tmp_path / name).mkdir()
        Manifest(name, "complete").write(tmp_path / name)
    step = Step("run", tmp_path / "run", ("stage3_mpm", "fit"), (tmp_path / "labels",))
    assert not step.is_done(tmp_path / "done")
    step.mark_done(tmp_path / "done")
    assert step.is_done(tmp_path / "done")
    Manifest("labels", "complete", git="other").write(tmp_path / "labels")
    with pytest.raises(ValueError, match="was made from other runs"):
        step.is_done(tmp_path / "done")


def test_two_rows_from_end_to_end_and_once_only(
    finished_runs: Path,
    shapes_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    overlays = tmp_path / "overlays"
    overlays.mkdir()
    shutil.copy(PROJECT / "tests/configs/stage3_mpm.yaml", overlays)
    (overlays / "evaluate.yaml").write_text(EVALUATION)
    arguments = [
        "study",
        f"--data={shapes_root}",
        f"--out={tmp_path / 'study'}",
        f"--overlays={overlays}",
        f"--labels={finished_runs / 'stage2_pseudolabels'}",
        "--autoattack=0",
        "--seeds=1",
        "--jobs=2",
        "--write_docs=true",
        f"--docs={tmp_path / 'docs'}",
        "--rows=[vanilla,mpm]",
    ]
    assert main(arguments) == 0
    folder = tmp_path / "study" / shapes_root.name
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert [(row["row"], row["seed"], row["state"]) for row in rows] == [
        ("vanilla", "0", "complete"),
        ("mpm", "0", "complete"),
    ]
    for row in rows:
        summary = json.loads((folder / f"evaluate/seed0/{row['row']}/summary.json").read_text())
        assert [float(row["clean"]), float(row["apgd_4"])] == [
            threat["accuracy"] for threat in summary["threats"]
        ]
        model = load_classifier(folder / "seed0" / row["row"])
        assert int(row["parameters"]) == sum(p.numel() for p in model.parameters())
    assert rows[0]["flops"] == rows[1]["flops"]  # the bypass is gone at inference
    losses = [
        json.loads((folder / f"seed0/{row['row']}/manifest.json").read_text())["config"]["model"]
        for row in rows
    ]
    assert [loss["init_args"]["part_loss_weight"] for loss in losses] == [0.0, 1.0]
    page = (tmp_path / "docs" / f"study_{shapes_root.name}.md").read_text()
    assert "2 of 2 runs are complete" in page

    def refuse(*_: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(Processes, "_start", refuse)
    capsys.readouterr()
    assert main(arguments) == 0
    assert "2 of 2 runs were done before" in capsys.readouterr().out


def test_cross_validation_tests_every_image_once_and_is_summed_up_with_earlier_seeds(
    shapes_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    overlays, over = tmp_path / "overlays", tmp_path / "over"
    overlays.mkdir()
    over.mkdir()
    for name in ("stage1_segmenter", "stage2_pseudolabels", "stage3_mpm"):
        shutil.copy(PROJECT / f"tests/configs/{name}.yaml", overlays)
    (overlays / "evaluate.yaml").write_text(EVALUATION)
    (over / "evaluate.yaml").write_text("data: {init_args: {images: {clean: 1000, apgd_4: 6}}}")
    docs = tmp_path / "docs"
    arguments = [
        "study",
        f"--data={shapes_root}",
        f"--out={tmp_path / 'study'}",
        f"--overlays=[{overlays},{over}]",
        "--folds=2",
        "--autoattack=0",
        "--seeds=1",
        "--jobs=2",
        "--write_docs=true",
        f"--docs={docs}",
        "--rows=[vanilla]",
    ]
    assert main(arguments) == 0
    folder = tmp_path / "study" / shapes_root.name
    outcomes = pq.read_table(docs / f"study_{shapes_root.name}.parquet").to_pylist()
    tested = [row["key"] for row in outcomes if row["threat"] == "clean"]
    listed = [
        line.rpartition(" ")[0]
        for fold in range(2)
        for line in (folder / f"folds/fold{fold}.txt").read_text().splitlines()
    ]
    assert sorted(tested) == sorted(listed)
    assert {row["fold"] for row in outcomes} == {0, 1}
    page = (docs / f"study_{shapes_root.name}.md").read_text()
    assert f"clean on {len(tested)} images" in page
    assert "split into 2 folds" in page

    earlier = tmp_path / "earlier.parquet"
    table = pq.read_table(docs / f"study_{shapes_root.name}.parquet")
    seeds = pa.array([7] * len(table), pa.int32())
    pq.write_table(table.set_column(table.column_names.index("seed"), "seed", seeds), earlier)
    assert main([*arguments, f"--more={earlier}", "--run=false"]) == 0
    assert "4 of 4 runs are complete" in (docs / f"study_{shapes_root.name}.md").read_text()

    def refuse(*_: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(Processes, "_start", refuse)
    pq.write_table(table, earlier)
    elsewhere = [*arguments, f"--out={tmp_path / 'elsewhere'}", f"--more={earlier}"]
    labels = folder / "stage2_pseudolabels"
    assert main([*elsewhere, f"--labels={labels}"]) == 0
    assert "2 of 2 runs were done before" in capsys.readouterr().out
    assert "2 of 2 runs are complete" in (docs / f"study_{shapes_root.name}.md").read_text()
    assert main([*arguments, "--recipe=huge"]) == 1
    assert "no stage has a configuration of that name" in capsys.readouterr().err

    with (over / "evaluate.yaml").open("a") as file:
        file.write("\n# a comment\n")
    assert main([*arguments, "--run=false"]) == 0
    assert "2 of 2 runs are complete" in (docs / f"study_{shapes_root.name}.md").read_text()
    with (over / "evaluate.yaml").open("a") as file:
        file.write("\ntrainer: {precision: 32-true}\n")
    assert main([*arguments, "--run=false"]) == 0
    assert "0 of 2 runs are complete" in (docs / f"study_{shapes_root.name}.md").read_text()
