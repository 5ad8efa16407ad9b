from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from modules.downstream_detector import DownstreamDetector
from modules.networks.preprocessing import ImageFormat
from modules.optimisation.schedules import Schedule
from modules.weights.classifier_export import export_timm
from tests.modules.tiny_detector import MODEL_ARGS, tiny_batch, tiny_detector

EPS, RATE, CLIP = 4 / 255, 0.01, 0.5


class SeedBatches(Callback):
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        torch.manual_seed(5)


def train_one_batch(module: DownstreamDetector) -> tuple[Trainer, list[list[Tensor]]]:
    """Trains on one batch; what the network was shown at each replay."""
    shown: list[list[Tensor]] = []
    module.network.register_forward_pre_hook(
        lambda _, inputs: shown.append([image.detach().clone() for image in inputs[0]])
    )
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[SeedBatches()],
    )
    trainer.fit(module, DataLoader([tiny_batch()], batch_size=None))  # type: ignore[arg-type]
    return trainer, shown


def settings(replays: int) -> dict[str, Any]:
    return {
        "replays": replays,
        "eps": EPS,
        "clip_norm": CLIP,
        "schedule": Schedule(),
        "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=RATE),
    }


def test_free_training_is_the_loop_written_by_hand() -> None:
    module, batch, replays = tiny_detector(**settings(3)), tiny_batch(), 3
    hand = deepcopy(module.network).train()
    trainer, shown = train_one_batch(module)

    torch.manual_seed(5)
    noise = [torch.zeros_like(image) for image in batch["image"]]
    parameters = [p for p in hand.parameters() if p.requires_grad]
    slow = {id(p) for p in hand.backbone.network.parameters()}
    for replay in range(replays):
        images = [
            (i + n).clamp(0, 1).requires_grad_() for i, n in zip(batch["image"], noise, strict=True)
        ]
        for seen, expected in zip(shown[replay], images, strict=True):
            torch.testing.assert_close(seen, expected.detach(), rtol=0, atol=1e-6)
        loss = sum(hand(images, batch["target"]).values())
        gradients = torch.autograd.grad(loss, [*images, *parameters])
        pixels, weights = gradients[: len(images)], gradients[len(images) :]
        length = torch.stack([g.norm() for g in weights]).norm()
        assert length > CLIP  # so that clipping is seen
        with torch.no_grad():
            for parameter, gradient in zip(parameters, weights, strict=True):
                rate = RATE * (0.1 if id(parameter) in slow else 1)
                parameter -= rate * gradient * CLIP / length
        noise = [(n + EPS * g.sign()).clamp(-EPS, EPS) for n, g in zip(noise, pixels, strict=True)]

    assert len(shown) == trainer.global_step == replays  # the weights are updated at each
    for name, value in module.network.state_dict().items():
        torch.testing.assert_close(value, hand.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_perturbation_stays_in_the_ball_and_is_kept_between_replays() -> None:
    batch = tiny_batch()
    _, shown = train_one_batch(tiny_detector(**settings(4)))
    assert all(torch.equal(a, b) for a, b in zip(shown[0], batch["image"], strict=True))
    distances = [
        torch.cat([(a - b).flatten() for a, b in zip(images, batch["image"], strict=True)])
        for images in shown
    ]
    assert all(distance.abs().max() <= EPS + 1e-6 for distance in distances)
    assert (distances[1].abs() > 0.9 * EPS).float().mean() > 0.9
    # from a corner of the ball a step leads to the same corner or back to the image
    steps = (distances[2] - distances[1]).abs()
    assert ((steps < 1e-6) | ((steps - EPS).abs() < 1e-6)).float().mean() > 0.9


def test_one_replay_is_training_on_clean_images() -> None:
    trainer, shown = train_one_batch(tiny_detector(**settings(1)))
    assert trainer.global_step == 1
    assert torch.equal(shown[0][0], tiny_batch()["image"][0])


def test_backbone_comes_from_an_exported_recogniser(tmp_path: Path) -> None:
    network = timm.create_model("resnet18", num_classes=5, **MODEL_ARGS)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    export_timm(
        network,
        tmp_path / "export",
        architecture="resnet18",
        model_args=MODEL_ARGS,
        num_classes=5,
        mean=mean,
        std=std,
        images=ImageFormat(64),
    )
    module = tiny_detector(backbone=tmp_path, architecture="resnet50", model_args=None)
    body = module.network.backbone.network
    for name, value in body.state_dict().items():
        assert torch.equal(value, network.state_dict()[name])
    assert module.network.transform.image_mean == pytest.approx(mean)
    assert module.network.transform.image_std == pytest.approx(std)
    trained = {name.split(".")[0] for name, p in body.named_parameters() if p.requires_grad}
    assert trained == {"layer2", "layer3", "layer4"}  # the stem and the first stage are frozen
    module.train()
    assert not any(part.training for part in body.modules())
    optimizer = module.configure_optimizers()["optimizer"]  # type: ignore[index]
    rates = {(g["lr_scale"], g.get("weight_decay") == 0) for g in optimizer.param_groups}
    assert rates == {(0.1, False), (0.1, True), (1.0, False)}


def test_random_weights_are_all_trained() -> None:
    module = tiny_detector()
    assert all(p.requires_grad for p in module.parameters())
    assert module.train().network.backbone.network.bn1.training


def test_learning_rate_warms_up_and_falls() -> None:
    schedule = Schedule(warmup_steps=10, warmup_start=0.001, shape="multistep", milestones=(0.5,))
    module = tiny_detector(schedule=schedule, replays=4)
    module.trainer = Trainer(max_steps=160, accelerator="cpu", logger=False)  # 40 batches
    type(module.trainer).estimated_stepping_batches, kept = (
        160,
        type(module.trainer).estimated_stepping_batches,
    )
    try:
        scheduler: Any = module.configure_optimizers()["lr_scheduler"]
        factor = scheduler["scheduler"].lr_lambdas[0]
        factors = [factor(batch) for batch in (0, 5, 10, 19, 20)]
    finally:
        type(module.trainer).estimated_stepping_batches = kept
    assert factors == pytest.approx([0.001, 0.5005, 1, 1, 0.1])


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_classes None"):
        tiny_detector(num_classes=None)
    with pytest.raises(ValueError, match="replays"):
        tiny_detector(replays=0)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        tiny_detector(backbone=tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="make downstream-detection"):
        tiny_detector(weights=tmp_path / "nothing")
    with pytest.raises(ValueError, match="four stages"):
        tiny_detector(architecture="swin_tiny_patch4_window7_224", model_args={})
    with pytest.raises(ValueError, match="strides"):
        tiny_detector(architecture="vit_tiny_patch16_224", model_args={"dynamic_img_size": True})
