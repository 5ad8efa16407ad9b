from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch.utils.data import DataLoader

from modules.optimisation.schedules import Schedule
from modules.part_segmenter import PartSegmenter
from tests.modules.tiny_segmenter import tiny_segmenter

OBJECT_PARTS = torch.tensor([[True, True, True, False], [True, False, False, True]])


def segmenter(**kwargs: object) -> PartSegmenter:
    settings = {
        "rpn_proposals": 30,
        "rois_per_image": 16,
        "detections_per_image": 10,
        "schedule": Schedule(warmup_steps=2),
    }
    return tiny_segmenter(OBJECT_PARTS, **settings | kwargs)


def samples() -> list[dict[str, object]]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for index in range(4):
        masks = torch.zeros(1, 64, 64, dtype=torch.uint8)
        masks[0, 10:40, 10 + index : 50] = 1
        found.append(
            {
                "image": torch.randint(256, (3, 64, 64), generator=generator).byte(),
                "target": {
                    "boxes": torch.tensor([[10.0 + index, 10, 50, 40]]),
                    "labels": torch.tensor([1 if index % 2 == 0 else 3]),
                    "masks": masks,
                },
                "label": index % 2,
                "key": str(index),
            }
        )
    return found


def collate(batch: list[dict[str, object]]) -> dict[str, object]:
    lists = {name: [sample[name] for sample in batch] for name in ("image", "target", "key")}
    return lists | {"label": torch.tensor([sample["label"] for sample in batch])}


def test_fit_validate_and_rebuild_from_the_checkpoint(tmp_path: Path) -> None:
    seed_everything(0)
    loader = DataLoader(samples(), batch_size=2, collate_fn=collate)
    best = ModelCheckpoint(tmp_path, "best", monitor="val/segm_AP_filtered", mode="max")
    model = segmenter(optimizer=partial(torch.optim.AdamW, lr=1e-3))
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_progress_bar=False,
        callbacks=[best, EMAWeightAveraging(decay=0.5)],
    )
    trainer.fit(model, loader, loader)
    names = {"val/segm_AP", "val/segm_AP50", "val/segm_AP_filtered", "val/segm_AP50_filtered"}
    assert names <= set(trainer.callback_metrics)
    assert trainer.optimizers[0].param_groups[0]["lr"] < 1e-3

    checkpoint = torch.load(tmp_path / "best.ckpt", weights_only=True)
    rebuilt = PartSegmenter.from_hyper_parameters(checkpoint["hyper_parameters"], OBJECT_PARTS)
    rebuilt.load_state_dict(checkpoint["state_dict"])
    images, label = [sample["image"] for sample in samples()], torch.tensor([0, 1, 0, 1])
    with torch.no_grad():
        found = rebuilt.eval().predict(images, label)
        expected = rebuilt.predict([image.float() / 255 for image in images], label)
    for image, same, parts in zip(found, expected, OBJECT_PARTS[label], strict=True):
        assert parts[image["labels"]].all()
        assert image["masks"].shape[1:] == (64, 64)
        torch.testing.assert_close(image["scores"], same["scores"])


def test_schedule_warms_up_then_falls() -> None:
    class Steps:
        estimated_stepping_batches = 12
        max_epochs = -1

    def factors_of(schedule: Schedule) -> list[float]:
        model = segmenter(schedule=schedule)
        model._trainer = Steps()
        scheduler = model.configure_optimizers()["lr_scheduler"]["scheduler"]
        return [scheduler.lr_lambdas[0](step) for step in range(13)]

    factors = factors_of(Schedule(warmup_steps=2))
    assert factors[:2] == [0.5, 1.0]
    assert factors[2] == 1.0
    assert factors[7] == pytest.approx(0.5)
    assert factors[12] == pytest.approx(0.0)
    steps = factors_of(Schedule(warmup_steps=2, shape="multistep"))
    assert [steps[step] for step in (2, 6, 9)] == pytest.approx([1.0, 0.1, 0.01])


def test_full_recipe_trains_and_old_settings_rebuild() -> None:
    seed_everything(0)
    model = segmenter(
        class_loss="federated",
        rpn_convs=2,
        head_norm="GN",
        grad_checkpointing=True,
        layer_decay=0.5,
        decay_norms=False,
        optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.05),
        schedule=Schedule(warmup_steps=1),
    )
    trainer = Trainer(
        accelerator="cpu", max_steps=2, logger=False, enable_progress_bar=False,
        enable_checkpointing=False, gradient_clip_val=1.0, precision="bf16-mixed",
        limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(model, datamodule=Samples())
    assert model.network.roi_heads.class_counts.tolist() == [0, 2, 0, 2]
    groups = trainer.optimizers[0].param_groups
    layers = max(model.network.layer_ids().values()) + 1
    rates = {round(group["initial_lr"], 10) for group in groups}
    assert rates == {round(1e-3 * 0.5**i, 10) for i in range(layers + 1)}
    assert {group["weight_decay"] for group in groups} == {0.0, 0.05}

    usual = segmenter()
    old = dict(usual.hparams)
    for name in ("engine", "grad_checkpointing", "layer_decay", "decay_norms"):
        del old[name]
    for name in ("rpn_convs", "head_norm", "class_loss", "detections_per_part"):
        del old["detector"][name]
    rebuilt = PartSegmenter.from_hyper_parameters(old, OBJECT_PARTS)
    rebuilt.load_state_dict(usual.state_dict())


class Samples(LightningDataModule):
    image_counts = torch.tensor([0, 2, 0, 2])

    def train_dataloader(self) -> DataLoader:
        return DataLoader(samples(), batch_size=2, collate_fn=collate)


def test_settings_of_version_0_1_rebuild_the_network() -> None:
    usual = segmenter()
    old = dict(usual.hparams) | {"schedule": "cosine", "warmup_steps": 2, "milestones": (0.5,)}
    old |= old.pop("detector") | {"_class_path": "modules.part_segmenter.PartSegmenter"}
    rebuilt = PartSegmenter.from_hyper_parameters(old, OBJECT_PARTS, score_threshold=0.5)
    rebuilt.load_state_dict(usual.state_dict())
    assert rebuilt.network.roi_heads.score_thresh == 0.5
    with pytest.raises(ValueError, match="no settings of a part segmenter"):
        PartSegmenter.from_hyper_parameters({"architecture": "resnet50"}, OBJECT_PARTS)


def test_usual_optimiser_has_one_group_of_all_parameters() -> None:
    model = segmenter()
    (group,) = model.configure_optimizers()["optimizer"].param_groups
    assert len(group["params"]) == len(list(model.parameters()))


def test_federated_loss_needs_the_class_frequencies() -> None:
    loader = DataLoader(samples(), batch_size=2, collate_fn=collate)
    trainer = Trainer(accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False)
    with pytest.raises(ValueError, match="image_counts"):
        trainer.fit(segmenter(class_loss="federated"), loader)


def test_detectron2_engine_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="downloads no weights"):
        segmenter(engine="detectron2", pretrained=True)
    if find_spec("detectron2") is None:
        with pytest.raises(ValueError, match="install detectron2"):
            segmenter(engine="detectron2")


@pytest.mark.parametrize(
    ("object_parts", "message"),
    [
        (None, "object_parts is missing"),
        (torch.ones(2, 3), "must be bool"),
        (torch.ones(2, 1, dtype=torch.bool), "must be bool"),
        (torch.zeros(2, 3, dtype=torch.bool), "column 0"),
        (torch.tensor([[True, True, False]]), "every part must belong"),
    ],
)
def test_wrong_object_parts(object_parts: torch.Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PartSegmenter(object_parts)


def test_missing_weights_file() -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        segmenter(weights=Path("nowhere.safetensors"))
