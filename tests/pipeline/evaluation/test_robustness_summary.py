import json
from pathlib import Path

import pyarrow as pa
import pytest
from lightning.pytorch import Trainer

from datamodules.evaluation.attack_batches import UnitDataset
from datamodules.robustness import RobustnessDataModule
from modules.attacks.adaptive import PartPGD
from modules.attacks.threats import PGD, AutoAttack, Square
from modules.mpm import MPM
from modules.networks.structures import NetworkSettings
from pipeline.evaluation.robustness_summary import masking_warnings
from pipeline.validation.composite_iou import CompositeIoU, mean_iou
from tests.modules.tiny_classifier import export_tiny_classifier
from tests.pipeline.evaluation.evaluation_runs import evaluate_robustness


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
    object_parts = RobustnessDataModule(shapes_root / "imagenet", shapes_root / "pinpp", {"pgd": 1})
    settings = NetworkSettings("bypass", "resnet10t", {"channels": [8, 8, 16, 16]})
    mpm = MPM(object_parts.object_parts, settings)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.strategy.connect(mpm)
    trainer.save_checkpoint(tmp_path / "mpm" / "checkpoints" / "best.ckpt", weights_only=True)
    mpm.export(tmp_path / "mpm" / "export")
    run = tmp_path / "run"
    sets = evaluate_robustness(
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
        evaluate_robustness(tmp_path / "mpm", shapes_root, run, PartPGD(0.1, 3, 0.05), {"pgd": 7})


def test_a_model_without_parts_is_attacked_all_the_same(shapes_root: Path, tmp_path: Path) -> None:
    model = export_tiny_classifier(tmp_path / "plain", num_classes=3)
    annotations = shapes_root / "val_parts"
    evaluate_robustness(model, shapes_root, tmp_path / "run", part_annotations=annotations)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [row["name"] for row in summary["threats"]] == ["clean", "pgd"]
    assert "keeps no bypass" in summary["parts"]["missing"]
