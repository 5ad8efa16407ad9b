import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from datamodules.attack_batches import UnitDataset
from datamodules.robustness_sets import RobustnessSets
from modules.attacks.adaptive import PartPGD
from modules.attacks.threats import PGD, AutoAttack, Clean, Square, Threat
from modules.mpm import MPM
from modules.robustness_evaluator import RobustnessEvaluator
from modules.weights import export_timm
from pipeline.composite_iou import CompositeIoU, mean_iou
from pipeline.robustness_records import RobustnessRecords
from pipeline.robustness_summary import masking_warnings

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
    stop_width: float | None = None,
    part_annotations: Path | None = None,
    **options: object,
) -> RobustnessSets:
    threats: dict[str, Threat] = {"clean": Clean(), "pgd": pgd or PGD(0.05, 2, 0.03)}
    sets = RobustnessSets(
        shapes_root / "imagenet",
        shapes_root / "pinpp",
        dict(images),
        3,
        image_size=16,
        resize=16,
        stop_width=stop_width,
        part_annotations=part_annotations,
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
        broken = ["clean" if r["clean_prediction"] != r["label"] else "PGD" for r in rows]
        broken = [("" if r["robust"] else name) for r, name in zip(rows, broken, strict=True)]
        assert [r["broken_by"] for r in rows] == broken
        assert row["broken_by"] == Counter(broken)
        assert all(r["linf"] <= r["l2"] <= r["l1"] for r in rows)
        robust = [r["clean_prediction"] == r["adversarial_prediction"] == r["label"] for r in rows]
        assert [r["robust"] for r in rows] == robust
        assert row["accuracy"] == pytest.approx(sum(robust) / row["n"])
        assert max(r["linf"] for r in rows) <= row["eps"] + 1e-6


def test_subset_is_stored_with_its_hash(finished: tuple[Path, RobustnessSets]) -> None:
    run, sets = finished
    summary = json.loads((run / "summary.json").read_text())
    written = (run / "subset.txt").read_bytes()
    assert written.decode().splitlines() == [f"{key} {n}" for key, n in sets.image_list[:10]]
    assert summary["subset"]["sha256"] == hashlib.sha256(written).hexdigest()
    assert summary["subset"]["per_class"] == [3, 4]
    assert summary["warnings"] == []
    assert "PINPP_VAL" in summary["parts"]["missing"]


def test_early_end_leaves_the_rest_out(
    finished: tuple[Path, RobustnessSets], model: Path, shapes_root: Path, tmp_path: Path
) -> None:
    evaluate(model, shapes_root, tmp_path, stop_width=0.6)
    summary = json.loads((tmp_path / "summary.json").read_text())
    whole = contents(finished[0])
    for row in summary["threats"]:
        assert row["early"] == (row["n"] < IMAGES[row["name"]])
        assert row["ci95"][1] - row["ci95"][0] <= 0.6
    assert any(row["early"] for row in summary["threats"])
    records = [name for name in contents(tmp_path) if name != "summary"]
    assert len(records) < len(whole) - 1
    assert all(contents(tmp_path)[name] == whole[name] for name in records)
    evaluate(model, shapes_root, tmp_path)  # without the rule the rest is done, too
    assert contents(tmp_path) == whole


def test_square_that_beats_gradients_is_a_warning() -> None:
    def table(robust: str, broken: str = "x") -> pa.Table:
        stands = [letter == "1" for letter in robust]
        names = ["" if flag else broken for flag in stands]
        return pa.table(
            {"key": list("abcdefgh"[: len(robust)]), "robust": stands, "broken_by": names}
        )

    threats = {"square": Square(0.1), "pgd": PGD(0.1, 1, 0.1), "far": PGD(0.2, 1, 0.1)}
    tables = {"square": table("00111"), "pgd": table("10111000"), "far": table("11111")}
    (line,) = masking_warnings(threats, tables)
    assert "square uses no gradients and leaves 3 of 5 images standing, pgd leaves 4 (1" in line
    assert masking_warnings(threats, tables | {"pgd": table("00011")}) == []
    (line,) = masking_warnings({"aa": AutoAttack(0.1)}, {"aa": table("0111", "square")})
    assert "Square broke 1 of 4 images" in line


def test_part_maps_under_attack(shapes_root: Path, tmp_path: Path) -> None:
    object_parts = RobustnessSets(shapes_root / "imagenet", shapes_root / "pinpp", {"pgd": 1})
    mpm = MPM(
        object_parts.object_parts, architecture="resnet10t", model_args={"channels": [8, 8, 16, 16]}
    )
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.strategy.connect(mpm)
    trainer.save_checkpoint(tmp_path / "mpm" / "checkpoints" / "best.ckpt", weights_only=True)
    mpm.export(tmp_path / "mpm" / "export")
    run = tmp_path / "run"
    sets = evaluate(
        tmp_path / "mpm",
        shapes_root,
        run,
        PartPGD(0.1, 3, 0.05),
        {"pgd": 7},
        part_annotations=shapes_root / "val_parts",
    )
    parts = json.loads((run / "summary.json").read_text())["parts"]
    mpm.eval()
    counts = CompositeIoU(("clean",), sets.vocabulary.num_parts)
    for unit in sets.units:
        dataset = UnitDataset(
            [unit], sets.split, 16, 16, sets.annotations, sets.vocabulary.inclusions
        )
        batch = dataset[0]
        found = mpm.predict_parts(batch["image"] / 255)
        assert found is not None
        side = 16 // found.shape[-1]  # truth at the centre of each cell
        truth = batch["part_map"][:, side // 2 :: side, side // 2 :: side]
        for key, *maps in zip(batch["key"], truth.numpy(), found.numpy(), strict=True):
            counts.update(key, maps[0], {"clean": maps[1]})
    assert parts["clean_miou"] == pytest.approx(mean_iou(counts.compute()["clean"]))
    assert (parts["threat"], parts["images"]) == ("pgd", 7)
    assert 0 <= parts["adversarial_miou"] <= 1
    assert parts["threats"]["pgd"]["parts"] == parts["parts"]
    with pytest.raises(ValueError, match="part_annotations: "):
        evaluate(tmp_path / "mpm", shapes_root, run, PartPGD(0.1, 3, 0.05), {"pgd": 7})


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
