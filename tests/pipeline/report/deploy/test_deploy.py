"""The page: which of the evaluated models to deploy."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from datamodules.files.json_files import write_json
from modules.weights.classifier_folder import load_classifier
from pipeline.__main__ import main
from pipeline.report.deploy.build import deploy
from pipeline.report.deploy.candidates import Candidate, Cost, Field, common_shifts, main_attack
from pipeline.report.deploy.front import dominators
from pipeline.report.reading.evaluations import read_evaluation
from tests.pipeline.report.deploy.deploy_runs import (
    all_corruptions,
    attacked,
    first,
    shifted,
    write_models,
)

LINF = "AutoAttack l∞ 4/255"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return write_models(tmp_path / "runs")


def candidate(run: Path, parameters: int = 5, times: float = 3.0) -> Candidate:
    rounds = times + np.random.default_rng(0).normal(0, 0.01, 50)
    return Candidate(read_evaluation(run), Cost(parameters, 7, 32, str(parameters), rounds))


def test_page_and_table(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = deploy(runs, rounds=30, device="cpu")
    assert page == runs / "deploy" / "index.html"
    text = page.read_text()
    with (page.parent / "deploy.csv").open() as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert rows["plain"]["detail"] == "worse than robust"  # the same network, so the same time
    assert rows["robust"]["detail"] == rows["wide"]["detail"] == "Pareto front"
    for name, row in rows.items():
        network = load_classifier(runs / name)
        size = sum(p.numel() for p in network.parameters())
        assert float(row["parameters, M"]) == pytest.approx(size / 1e6, rel=1e-4)
        assert 0 < float(row["ms low"]) <= float(row["ms"]) <= float(row["ms high"])
    assert float(rows["robust"][LINF]) == 50
    assert float(rows["wide"]["clean"]) == 90
    said = capsys.readouterr().out
    assert said.startswith("2 of 3 models are left to choose from (robust and wide)")
    assert "plain: leave it, robust is as good in all and better in some." in said
    assert "wide: choose it for clean images" in said  # how fast it is depends on the machine
    assert "For images that someone attacks: robust, 50.0 % (43.1 to 56.9); decided" in said
    for line in said.splitlines():
        assert line.replace("&", "&amp;") in text
    assert "batches of 1, float32, 30 rounds" in text
    assert "plain, corruptions: <code>make generalisation MODEL=" in text
    assert 'src="http' not in text
    assert text.count('src="data:image/svg+xml;base64,') == 1
    assert "For little memory: robust, 0.0" in said  # not plain, which is off the front


def test_a_model_that_is_not_here_is_listed_and_stays_on_the_front(runs: Path) -> None:
    shutil.rmtree(runs / "plain")
    text = deploy(runs, rounds=10, device="cpu").read_text()
    assert "plain, parameters, GFLOPs and ms: <code>make deploy" in text
    assert "plain is not here" in text
    with (runs / "deploy" / "deploy.csv").open() as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert rows["plain"]["detail"] == "Pareto front"  # nothing is known of what it costs
    assert rows["plain"]["ms"] == ""


def test_undecided_and_equal(tmp_path: Path) -> None:
    outcomes = {
        "a": (first(100), first(60)),
        "twin": (first(100), first(60)),  # the same answers
        "near": (first(103), first(60)),
        # as many right as a, other images
        "other": ([not one for one in first(100)], first(60)),
        "far": (first(160), first(60)),
    }
    for name, (clean, robust) in outcomes.items():
        attacked(tmp_path / name, name, {"clean": clean, "autoattack": robust})
    field = Field([candidate(tmp_path / name) for name in outcomes])
    verdicts = {name: field.judge("a", name, "clean") for name in outcomes if name != "a"}
    assert verdicts == {
        "twin": "equal",
        "near": "undecided",
        "other": "undecided",
        "far": "worse",
    }
    assert field.judge("far", "a", "clean") == "better"
    better = dominators(list(outcomes), field.criteria, field.judge)
    assert better["a"] == better["twin"] == ["far"]
    assert better["far"] == []
    # a comparison that was stopped when it was decided has no such interval
    rows = [{"threat": "clean", "images": 50, "available": 200, "better": "this"}]
    write_json(tmp_path / "far" / "decisions.json", {"against": "a", "decisions": rows})
    assert field.judge("far", "a", "clean") == "undecided"


def test_costs_are_compared(tmp_path: Path) -> None:
    for name in "abc":
        attacked(tmp_path / name, name, {"clean": first(100)})
    sizes = {"a": (5, 3.0), "b": (6, 3.2), "c": (6, 3.0)}
    field = Field([candidate(tmp_path / n, *about) for n, about in sizes.items()])
    assert field.judge("a", "b", "parameters") == "better"
    assert field.judge("b", "c", "parameters") == "equal"
    assert field.judge("a", "b", "ms") == "better"
    assert field.judge("b", "a", "ms") == "worse"
    assert field.judge("b", "c", "ms") == "equal"  # of one structure
    assert field.judge("a", "b", "gflops") == "equal"
    assert field.cell("a", "ms").value == pytest.approx(3.0, abs=0.02)
    assert field.criteria == ["clean", "parameters", "gflops", "ms"]


def test_corruptions_and_shifts(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for name, share in (("a", 0.7), ("b", 0.4)):
        sets = all_corruptions(share)
        sets |= {"sketch": rng.random(50) < share, "din/x": rng.random(40) < share}
        sets |= {"din/y": rng.random(60) < share}
        if name == "a":
            sets["imagenet_r"] = rng.random(50) < share
        shifted(tmp_path / name, name, sets)
    field = Field([candidate(tmp_path / name) for name in "ab"])
    assert field.shifts == ["din", "sketch"]
    assert field.judge("a", "b", "corruptions") == "better"
    assert field.judge("b", "a", "shifts") == "worse"
    sets_of_a = {n: r.accuracy for n, r in read_evaluation(tmp_path / "a").sets.items()}
    shifts = (sets_of_a["sketch"] + (sets_of_a["din/x"] + sets_of_a["din/y"]) / 2) / 2
    assert field.cell("a", "shifts").value == pytest.approx(100 * shifts)
    corrupted = np.mean([x.mean() for x in all_corruptions(0.7).values()])
    assert field.cell("a", "corruptions").value == pytest.approx(100 * corrupted)
    assert field.cell("a", "clean").note.startswith("not run: no attack")
    assert common_shifts([]) == []
    assert main_attack([one.evaluation for one in field.candidates.values()]) == ""


def test_what_cannot_be_answered_is_one_line(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        (["--runs", str(tmp_path / "empty")], "holds no evaluated model: run make evaluate first"),
        (["--runs", str(tmp_path / "gone")], "is not a folder"),
        (["--runs", str(runs), "--rounds", "3"], "rounds=3 10 or more"),
        (["--runs", str(runs), "--device", "tpu"], "device=tpu must be auto, cpu or cuda"),
        (["--runs", str(runs), "--models+", "nobody"], f"make evaluate MODEL={runs}/nobody"),
    ):
        assert main(["deploy", *arguments]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (runs / "deploy").exists()
