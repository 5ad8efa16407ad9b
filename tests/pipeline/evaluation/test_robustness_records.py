import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from torch import Tensor, nn

from datamodules.files.errors import UserError
from datamodules.robustness import RobustnessDataModule
from modules.attacks.kept_calls import KeptCalls
from modules.attacks.threats import PGD, AutoAttack
from pipeline.evaluation.compare_outcomes import main as compare_main
from tests.modules.tiny_classifier import export_tiny_classifier
from tests.pipeline.evaluation.evaluation_runs import IMAGES, contents, evaluate_robustness


class FailsAt(PGD):
    """PGD that dies when a file says so, with PGD's settings."""

    def __init__(self, left: int) -> None:
        super().__init__(0.05, 2, 0.03)
        self._left = left

    @property
    def settings(self) -> dict:
        return PGD(0.05, 2, 0.03).settings

    def perturb(self, network: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        if self._left == 0:
            raise RuntimeError("power cut")
        self._left -= 1
        return super().perturb(network, images, labels, seed)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, shapes_root: Path) -> Path:
    objects = len(list((shapes_root / "imagenet" / "train").iterdir()))
    return export_tiny_classifier(tmp_path_factory.mktemp("stage3_mpm"), objects)


@pytest.fixture(scope="module")
def finished(
    model: Path, shapes_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, RobustnessDataModule]:
    run = tmp_path_factory.mktemp("evaluate")
    return run, evaluate_robustness(model, shapes_root, run)


def test_summary_is_that_of_the_records(
    finished: tuple[Path, RobustnessDataModule], model: Path
) -> None:
    run, sets = finished
    summary = json.loads((run / "summary.json").read_text())
    assert summary["model"] == str(model)
    assert [(row["name"], row["norm"], row["n"]) for row in summary["threats"]] == [
        ("clean", None, 10),
        ("pgd", "linf", 7),
    ]
    for row in summary["threats"]:
        files = sorted((run / "records" / row["name"]).glob("*.parquet"))
        rows = [record for file in files for record in pq.read_table(file).to_pylist()]
        assert [(r["key"], r["label"]) for r in rows] == sets.image_list[: row["n"]]
        broken = ["clean" if r["clean_prediction"] != r["label"] else "PGD" for r in rows]
        broken = [("" if r["robust"] else name) for r, name in zip(rows, broken, strict=True)]
        assert [r["broken_by"] for r in rows] == broken
        assert row["broken_by"] == Counter(broken)
        assert all(r["linf"] <= r["l2"] <= r["l1"] for r in rows)
        robust = [r["clean_prediction"] == r["adversarial_prediction"] == r["label"] for r in rows]
        assert [r["robust"] for r in rows] == robust
        assert row["accuracy"] == pytest.approx(sum(robust) / row["n"])
        assert max(r["linf"] for r in rows) <= row["eps"] + 1e-6


def test_subset_is_stored_with_its_hash(finished: tuple[Path, RobustnessDataModule]) -> None:
    run, sets = finished
    summary = json.loads((run / "summary.json").read_text())
    written = (run / "subset.txt").read_bytes()
    assert written.decode().splitlines() == [f"{key} {n}" for key, n in sets.image_list[:10]]
    assert summary["subset"]["sha256"] == hashlib.sha256(written).hexdigest()
    assert summary["subset"]["per_class"] == [3, 4]
    assert summary["warnings"] == []
    assert "PINPP_VAL" in summary["parts"]["missing"]


def test_a_chunk_that_was_cut_goes_on_with_the_next_call_of_its_attack(
    model: Path, shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threat = AutoAttack(0.01, version="custom", attacks=["apgd-ce"], batch_size=1)
    keep, calls, cut = KeptCalls.keep, [], tmp_path / "cut"

    def count(*args: object) -> None:
        keep(*args)  # type: ignore[arg-type]
        calls.append(args[0])
        if cut.exists():
            raise RuntimeError("power cut")

    monkeypatch.setattr(KeptCalls, "keep", count)
    evaluate_robustness(model, shapes_root, tmp_path / "whole", threat)
    wanted, cuts = len(calls), 0
    while not (cut / "summary.json").is_file() and cuts < 20:
        try:
            evaluate_robustness(model, shapes_root, cut, threat)
        except RuntimeError:
            cuts += 1
    assert cuts == wanted > 1
    assert len(calls) == 2 * wanted  # none was made twice
    assert contents(cut) == contents(tmp_path / "whole")
    assert not list(cut.rglob("*.kept"))


def test_early_end_leaves_the_rest_out(
    finished: tuple[Path, RobustnessDataModule], model: Path, shapes_root: Path, tmp_path: Path
) -> None:
    evaluate_robustness(model, shapes_root, tmp_path, stop_width=0.6)
    summary = json.loads((tmp_path / "summary.json").read_text())
    whole = contents(finished[0])
    for row in summary["threats"]:
        assert row["early"] == (row["n"] < IMAGES[row["name"]])
        assert row["ci95"][1] - row["ci95"][0] <= 0.6
    assert any(row["early"] for row in summary["threats"])
    records = [name for name in contents(tmp_path) if name != "summary"]
    assert len(records) < len(whole) - 1
    assert all(contents(tmp_path)[name] == whole[name] for name in records)
    evaluate_robustness(model, shapes_root, tmp_path)  # without the rule the rest is done, too
    assert contents(tmp_path) == whole


def against(finished: Path, run: Path, robust: bool | None) -> Path:
    """A finished run whose model got all images right, none, or as they were."""
    shutil.copytree(finished, run)
    for file in run.glob("records/*/*.parquet"):
        table = pq.read_table(file)
        if robust is not None:
            column = pa.array([robust] * len(table))
            table = table.set_column(table.column_names.index("robust"), "robust", column)
        pq.write_table(table, file)
    return run


@pytest.mark.parametrize("robust", [True, False, None])
def test_a_comparison_ends_when_it_is_decided(
    model: Path,
    shapes_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    robust: bool | None,
) -> None:
    images = {"clean": 1000}
    whole = tmp_path / "whole"
    evaluate_robustness(model, shapes_root, whole, images=images)
    other = against(whole, tmp_path / "other", robust)
    run = tmp_path / "run"
    evaluate_robustness(model, shapes_root, run, images=images, stop_against=other, stop_level=0.3)
    (row,) = json.loads((run / "decisions.json").read_text())["decisions"]
    found = [
        line
        for file in sorted(run.glob("records/clean/*.parquet"))
        for line in pq.read_table(file).to_pylist()
    ]
    right = sum(line["robust"] for line in found)
    assert row["images"] == len(found)
    expected = {True: (0, len(found) - right), False: (right, 0), None: (0, 0)}[robust]
    assert (row["wins"], row["losses"]) == expected
    # 4 images of 4 are the fewest that decide at level 0.3, chunks have 3
    decided = max(expected) >= 4
    assert row["better"] == ({True: "other", False: "this", None: ""}[robust] if decided else "")
    assert max(expected) <= 6
    assert decided or row["images"] == row["available"]
    compare_main(other, run, "clean")
    stopped = row["images"] < row["available"]
    assert ("was stopped when a comparison was decided" in capsys.readouterr().out) == stopped
    if robust:
        assert stopped


def test_a_reference_of_other_images_is_refused(
    finished: tuple[Path, RobustnessDataModule], model: Path, shapes_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="evaluate the other model first"):
        evaluate_robustness(
            model, shapes_root, tmp_path, images={"clean": 1000}, stop_against=finished[0]
        )


def test_a_reference_of_another_attack_is_refused(
    finished: tuple[Path, RobustnessDataModule], model: Path, shapes_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"stop_against=.*\(pgd.eps: 0.05 -> 0.1\)"):
        evaluate_robustness(
            model, shapes_root, tmp_path, PGD(0.1, 2, 0.03), stop_against=finished[0]
        )
    assert not list(tmp_path.iterdir())


def test_examples_are_pairs_of_the_attack(finished: tuple[Path, RobustnessDataModule]) -> None:
    run, sets = finished
    with np.load(run / "examples.npz", allow_pickle=False) as examples:
        assert examples["clean"].shape == examples["adversarial"].shape == (2, 16, 16, 3)
        difference = examples["clean"].astype(int) - examples["adversarial"]
        assert 0 < np.abs(difference).max() <= np.ceil(0.05 * 255)
        assert examples["threat"].tolist() == ["pgd", "pgd"]
        assert examples["key"].tolist() == [key for key, _ in sets.image_list[:2]]
        assert tuple(examples["objects"]) == sets.vocabulary.objects


def test_cut_run_goes_on_and_ends_the_same(
    finished: tuple[Path, RobustnessDataModule], model: Path, shapes_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        evaluate_robustness(model, shapes_root, tmp_path, FailsAt(1))
    assert not (tmp_path / "summary.json").exists()
    done = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert len(done) == 5
    damaged = next(iter(done))
    damaged.write_bytes(b"half a fi")
    evaluate_robustness(model, shapes_root, tmp_path)
    assert contents(tmp_path) == contents(finished[0])
    kept = {path: path.stat().st_mtime_ns for path in done if path != damaged}
    assert kept.items() <= done.items()


def test_nothing_left_to_do_still_sums_up(
    finished: tuple[Path, RobustnessDataModule], model: Path, shapes_root: Path
) -> None:
    run, _ = finished
    before = contents(run)
    (run / "summary.json").unlink()
    evaluate_robustness(model, shapes_root, run, FailsAt(0))
    assert contents(run) == before


def test_more_images_keep_the_whole_chunks(
    finished: tuple[Path, RobustnessDataModule], model: Path, shapes_root: Path, tmp_path: Path
) -> None:
    evaluate_robustness(model, shapes_root, tmp_path, images={"pgd": 3})
    evaluate_robustness(model, shapes_root, tmp_path, FailsAt(2))
    assert contents(tmp_path) == contents(finished[0])


def test_two_processes_end_the_same(
    finished: tuple[Path, RobustnessDataModule], model: Path, shapes_root: Path, tmp_path: Path
) -> None:
    evaluate_robustness(model, shapes_root, tmp_path, strategy="ddp_spawn", devices=2)
    assert contents(tmp_path) == contents(finished[0])
    # one unit left: the second process has none
    (tmp_path / "records" / "pgd" / "00000.parquet").unlink()
    evaluate_robustness(model, shapes_root, tmp_path, strategy="ddp_spawn", devices=2)
    assert contents(tmp_path) == contents(finished[0])


def test_other_settings_are_refused(
    finished: tuple[Path, RobustnessDataModule], model: Path, shapes_root: Path
) -> None:
    before = contents(finished[0])
    with pytest.raises(ValueError, match=r"threats.pgd.eps: 0.05 -> 0.1\)"):
        evaluate_robustness(model, shapes_root, finished[0], PGD(0.1, 2, 0.03))
    assert contents(finished[0]) == before


def test_other_files_of_the_same_names_are_refused_and_a_moved_folder_goes_on(
    model: Path, shapes_root: Path, tmp_path: Path
) -> None:
    root, run = tmp_path / "shapes", tmp_path / "run"
    shutil.copytree(shapes_root, root)
    evaluate_robustness(model, root, run, images={"clean": 3})
    root = root.rename(tmp_path / "moved")
    evaluate_robustness(model, root, run, images={"clean": 6})
    before = contents(run)
    for file in (root / "imagenet" / "val").rglob("*.jpg"):
        Image.open(file).rotate(90).save(file)
    refused = r"records was made another way \(files.images: \w{64} -> \w{64}\): .* delete the rec"
    with pytest.raises(UserError, match=refused):
        evaluate_robustness(model, root, run)
    assert contents(run) == before


def test_records_that_do_not_say_their_files_go_on_with_a_word(
    finished: tuple[Path, RobustnessDataModule],
    model: Path,
    shapes_root: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = Path(shutil.copytree(finished[0], tmp_path / "run"))
    path = run / "records" / "settings.json"
    settings = json.loads(path.read_text())
    del settings["files"]
    path.write_text(json.dumps(settings))
    evaluate_robustness(model, shapes_root, run)
    (line,) = [line for line in caplog.messages if "earlier version" in line]
    assert "did not note the files of the images: if they are others now, use another run" in line
    assert json.loads(path.read_text()) == settings


def test_images_for_an_unknown_threat_are_refused(
    model: Path, shapes_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="names other, but the model's threats are clean, pgd"):
        evaluate_robustness(model, shapes_root, tmp_path, images={"other": 3})
