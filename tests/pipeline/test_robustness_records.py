import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from datamodules.robustness_sets import RobustnessSets
from modules.attacks.threats import PGD, Clean, Threat
from modules.robustness_evaluator import RobustnessEvaluator
from modules.weights import export_timm
from pipeline.robustness_records import RobustnessRecords, wilson_interval

IMAGES = {"clean": 10, "pgd": 7}


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
    torch.manual_seed(0)
    objects = len(list((shapes_root / "imagenet" / "train").iterdir()))
    model_args = {"channels": [8, 8, 16, 16]}
    network = timm.create_model("resnet10t", num_classes=objects, **model_args)
    folder = tmp_path_factory.mktemp("stage3_mpm")
    export_timm(
        network,
        folder / "export",
        architecture="resnet10t",
        model_args=model_args,
        num_classes=objects,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        image_size=16,
    )
    return folder


def evaluate(
    model: Path,
    shapes_root: Path,
    run: Path,
    pgd: Threat | None = None,
    images: dict[str, int] = IMAGES,
    **options: object,
) -> RobustnessSets:
    threats = {"clean": Clean(), "pgd": pgd or PGD(0.05, 2, 0.03)}
    sets = RobustnessSets(
        shapes_root / "imagenet", shapes_root / "pinpp", images, 3, image_size=16, resize=16
    )
    trainer = Trainer(
        default_root_dir=run,
        inference_mode=False,
        use_distributed_sampler=False,
        accelerator="cpu",
        callbacks=[RobustnessRecords(num_examples=2)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **options,  # type: ignore[arg-type]
    )
    evaluator = RobustnessEvaluator(model, threats, sets.object_parts)
    trainer.test(evaluator, datamodule=sets, verbose=False)
    return sets


def contents(run: Path) -> dict[str, object]:
    records = sorted((run / "records").rglob("*.parquet"))
    tables = {str(path.relative_to(run)): pq.read_table(path).to_pydict() for path in records}
    return tables | {"summary": json.loads((run / "summary.json").read_text())}


@pytest.fixture(scope="module")
def finished(
    model: Path, shapes_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, RobustnessSets]:
    run = tmp_path_factory.mktemp("evaluate")
    return run, evaluate(model, shapes_root, run)


def test_summary_is_that_of_the_records(finished: tuple[Path, RobustnessSets], model: Path) -> None:
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
        robust = [r["clean_prediction"] == r["adversarial_prediction"] == r["label"] for r in rows]
        assert [r["robust"] for r in rows] == robust
        assert row["accuracy"] == pytest.approx(sum(robust) / row["n"])
        assert max(r["linf"] for r in rows) <= row["eps"] + 1e-6


def test_examples_are_pairs_of_the_attack(finished: tuple[Path, RobustnessSets]) -> None:
    run, sets = finished
    with np.load(run / "examples.npz", allow_pickle=False) as examples:
        assert examples["clean"].shape == examples["adversarial"].shape == (2, 16, 16, 3)
        difference = examples["clean"].astype(int) - examples["adversarial"]
        assert 0 < np.abs(difference).max() <= np.ceil(0.05 * 255)
        assert examples["threat"].tolist() == ["pgd", "pgd"]
        assert examples["key"].tolist() == [key for key, _ in sets.image_list[:2]]
        assert tuple(examples["objects"]) == sets.vocabulary.objects


def test_cut_run_goes_on_and_ends_the_same(
    finished: tuple[Path, RobustnessSets], model: Path, shapes_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        evaluate(model, shapes_root, tmp_path, FailsAt(1))
    assert not (tmp_path / "summary.json").exists()
    done = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert len(done) == 5
    damaged = next(iter(done))
    damaged.write_bytes(b"half a fi")
    evaluate(model, shapes_root, tmp_path)
    assert contents(tmp_path) == contents(finished[0])
    kept = {path: path.stat().st_mtime_ns for path in done if path != damaged}
    assert kept.items() <= done.items()


def test_nothing_left_to_do_still_sums_up(
    finished: tuple[Path, RobustnessSets], model: Path, shapes_root: Path
) -> None:
    run, _ = finished
    before = contents(run)
    (run / "summary.json").unlink()
    evaluate(model, shapes_root, run, FailsAt(0))
    assert contents(run) == before


def test_more_images_keep_the_whole_chunks(
    finished: tuple[Path, RobustnessSets], model: Path, shapes_root: Path, tmp_path: Path
) -> None:
    evaluate(model, shapes_root, tmp_path, images={"pgd": 3})
    evaluate(model, shapes_root, tmp_path, FailsAt(2))
    assert contents(tmp_path) == contents(finished[0])


def test_two_processes_end_the_same(
    finished: tuple[Path, RobustnessSets], model: Path, shapes_root: Path, tmp_path: Path
) -> None:
    evaluate(model, shapes_root, tmp_path, strategy="ddp_spawn", devices=2)
    assert contents(tmp_path) == contents(finished[0])
    # one unit left: the second process has none
    (tmp_path / "records" / "pgd" / "00000.parquet").unlink()
    evaluate(model, shapes_root, tmp_path, strategy="ddp_spawn", devices=2)
    assert contents(tmp_path) == contents(finished[0])


def test_other_settings_are_refused(
    finished: tuple[Path, RobustnessSets], model: Path, shapes_root: Path
) -> None:
    before = contents(finished[0])
    with pytest.raises(ValueError, match=r"threats.pgd.eps: 0.05 -> 0.1\)"):
        evaluate(model, shapes_root, finished[0], PGD(0.1, 2, 0.03))
    assert contents(finished[0]) == before


def test_images_for_an_unknown_threat_are_refused(
    model: Path, shapes_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="names other, but the model's threats are clean, pgd"):
        evaluate(model, shapes_root, tmp_path, images={"other": 3})


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)],
)
def test_wilson_interval_of_newcombe_1998(right: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(right, total) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(total - right, total) == pytest.approx((1 - high, 1 - low), abs=5e-5)
