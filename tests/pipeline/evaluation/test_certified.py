"""Certified accuracy from the records to the report."""

import json
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import binomtest

from datamodules.evaluation.attack_batches import to_pixels
from datamodules.images.image_files import read_image
from datamodules.robustness import RobustnessDataModule
from modules.attacks.smoothing import RandomisedSmoothing
from modules.attacks.threats import Clean
from modules.robustness_evaluator import RobustnessEvaluator
from modules.weights.classifier_folder import load_classifier
from pipeline.evaluation.robustness_records import RobustnessRecords
from pipeline.evaluation.summaries import RobustnessSummary
from pipeline.report.build import build_report
from pipeline.report.certified_table import certified_table
from pipeline.report.exports import to_csv
from pipeline.report.reading.evaluations import read_evaluation
from tests.modules.tiny_classifier import export_tiny_classifier
from tests.pipeline.commands import PROJECT
from tests.pipeline.evaluation.evaluation_runs import quiet_trainer

RADII = [0.0, 0.05, 1.0]


def smoothing(batch: int = 30, n: int = 60) -> RandomisedSmoothing:
    return RandomisedSmoothing(0.02, 10, n, alpha=0.05, batch=batch, radii=RADII)


def certify(
    model: Path,
    shapes_root: Path,
    run: Path,
    threat: RandomisedSmoothing | None = None,
    chunk_size: int = 3,
    images: int = 7,
    **options: object,
) -> RobustnessDataModule:
    sets = RobustnessDataModule(
        shapes_root / "imagenet",
        None,
        {"smooth": images},
        chunk_size,
        image_size=16,
        resize=16,
    )
    threats = {"smooth": threat or smoothing(), "clean": Clean()}
    trainer = quiet_trainer(run, RobustnessRecords(), inference_mode=False, **options)
    trainer.test(RobustnessEvaluator(model, threats), datamodule=sets, verbose=False)
    return sets


def records(run: Path) -> pa.Table:
    files = sorted((run / "records" / "smooth").glob("*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny_classifier(tmp_path_factory.mktemp("model"), num_classes=3)


def test_records_and_summary(model: Path, shapes_root: Path, tmp_path: Path) -> None:
    sets = certify(model, shapes_root, tmp_path)
    rows = records(tmp_path).to_pylist()
    assert len(rows) == 7
    network = load_classifier(model)
    for row, (key, label) in zip(rows, sets.image_list, strict=False):
        pixels = to_pixels(read_image(sets.split / key), 16, 16).float() / 255
        wanted = smoothing().certify(network, pixels, key)
        assert (row["key"], row["label"]) == (key, label)
        assert (row["adversarial_prediction"], row["abstained"]) == wanted[::2]
        assert row["radius"] == pytest.approx(wanted.radius, abs=0.003)
        assert row["robust"] == (wanted.prediction == label)
        with torch.no_grad():
            assert row["clean_prediction"] == int(network(pixels[None]).argmax())
    summary = RobustnessSummary.read(tmp_path)
    assert summary.threats == []  # it is no attack
    (found,) = summary.certified
    assert (found.sigma, found.n0, found.n, found.alpha) == (0.02, 10, 60, 0.05)
    assert found.abstained == sum(row["abstained"] for row in rows)
    assert found.clean == sum(row["clean_prediction"] == row["label"] for row in rows) / 7
    for share, radius in zip(found.shares, RADII, strict=True):
        right = sum(row["robust"] and row["radius"] >= radius for row in rows)
        assert share.accuracy == right / 7
        interval = binomtest(right, 7).proportion_ci(method="wilson")
        assert tuple(share.ci95) == pytest.approx((interval.low, interval.high))


def test_cut_and_differently_cut_runs_certify_the_same(
    model: Path, shapes_root: Path, tmp_path: Path
) -> None:
    certify(model, shapes_root, tmp_path / "whole")
    certify(model, shapes_root, tmp_path / "cut", limit_test_batches=1)
    assert len(records(tmp_path / "cut")) == 3
    certify(model, shapes_root, tmp_path / "cut", smoothing(batch=7))
    certify(model, shapes_root, tmp_path / "other", smoothing(batch=7), chunk_size=7)
    whole = records(tmp_path / "whole").to_pylist()
    for name in ("cut", "other"):
        for row, wanted in zip(records(tmp_path / name).to_pylist(), whole, strict=True):
            assert row["radius"] == pytest.approx(wanted["radius"], abs=0.003)
            assert row["adversarial_prediction"] == wanted["adversarial_prediction"]
    with pytest.raises(ValueError, match="threats"):
        certify(model, shapes_root, tmp_path / "cut", smoothing(n=61))


def test_table_of_the_report(model: Path, shapes_root: Path, tmp_path: Path) -> None:
    certify(model, shapes_root, tmp_path / "evaluate" / "tiny" / "certified")
    one = read_evaluation(tmp_path / "evaluate" / "tiny")
    table = certified_table([one])
    (row,) = table.rows
    assert row.name == "tiny, sigma 0.02"
    assert [column.title for column in table.columns] == ["abstained", "l2 0", "l2 0.05", "l2 1"]
    shares = one.certified[0].shares
    assert [cell.value for cell in row.cells[1:] if cell] == [100 * s.accuracy for s in shares]
    assert row.cells[-1].value == 0  # no radius of 1 can be shown with this noise
    assert "tiny, sigma 0.02" in to_csv(table)
    page = build_report(tmp_path).read_text()
    before, _, after = page.partition('<h2 id="missing">')
    assert 'id="certified"' in before
    assert "of the classifier smoothed by noise" in before
    assert 'id="certified"' not in after


def test_what_was_not_smoothed_says_how(model: Path, shapes_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "evaluate" / "tiny"
    sets = RobustnessDataModule(
        shapes_root / "imagenet", None, {"clean": 3}, 3, image_size=16, resize=16
    )
    trainer = quiet_trainer(run, RobustnessRecords(), inference_mode=False)
    evaluator = RobustnessEvaluator(model, {"clean": Clean()})
    trainer.test(evaluator, datamodule=sets, verbose=False)
    summary = json.loads((run / "summary.json").read_text())
    assert summary.pop("certified") == []
    (run / "summary.json").write_text(json.dumps(summary))  # as before there was such an entry
    _, _, after = build_report(tmp_path).read_text().partition('<h2 id="missing">')
    command = "make evaluate CONFIG=&#34;imagenet smoothing&#34;"
    assert f"Certified accuracy by randomised smoothing: <code>{command}</code>" in after


@pytest.mark.parametrize(("config", "folder"), [("small", ""), ("small smoothing", "/certified")])
def test_certificates_have_a_folder_of_their_own(config: str, folder: str) -> None:
    """Another summary beside that of the attacks, which it would replace."""
    command = ["make", "-n", "evaluate", "IMAGENET=i", "RUNS=out", f"CONFIG={config}"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    text = done.stdout.replace("'", "")
    assert f"--trainer.default_root_dir=out/evaluate/stage3_mpm{folder} " in text
