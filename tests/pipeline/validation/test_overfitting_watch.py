"""One-step attacks end by themselves when a network is robust to nothing else."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datamodules.part_supervised import PartSupervisedDataModule
from modules.attacks.pixel_units import PixelDistance
from modules.attacks.training_attack import TrainingAttack
from modules.losses.part_level import PartLevel
from modules.mpm import MPM
from modules.networks.structures import NetworkSettings
from pipeline.validation.overfitting_watch import OverfittingWatch, WatchedAccuracy, collapsed

EPS, GREY, EPOCHS = 8 / 255, 128 / 255, 4
TINY = {"channels": [8, 8, 16, 16], "stem_width": 8}


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ((40, 36), (60, 4), True),  # robust, then to one step alone
        ((40, 0), (60, 0), True),  # never robust to more
        (None, (60, 0), False),  # a clean network after its first epoch may still become so
        ((10, 1), (20, 4), False),  # on its way
        ((40, 36), (22, 14), False),  # both fall: something else is wrong
        ((4, 2), (4, 0), False),  # too few to tell
        ((40, 36), (0, 0), False),
    ],
    ids=["drop", "never", "first", "rising", "both", "few", "nothing"],
)
def test_rule(before: tuple[int, int] | None, now: tuple[int, int], expected: bool) -> None:
    last = None if before is None else WatchedAccuracy(0, 100, *before)
    assert collapsed(last, WatchedAccuracy(1, 100, *now)) is expected


class Bumpy(nn.Module):
    """Right on the grey image and near the ball's edge, wrong between: only small steps find it.

    One step from a random start moves the mean by about 0.86 radii, where the answer is right
    again; PGD-10 climbs to the bump at half a radius and stays.
    """

    def __init__(self, bump: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.bump = bump
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        moved = (images.mean((1, 2, 3)) - GREY) / EPS
        margin = 1 - self.bump + self.bump * torch.cos(2 * math.pi * moved)
        return torch.stack([margin * self.scale, torch.zeros_like(margin)], 1)

    def surrogate(self, images: Tensor) -> Tensor:
        self.calls += isinstance(images, Tensor)  # batch norms are sought with a proxy
        return self(images)

    def forward_with_parts(self, images: Tensor) -> tuple[Tensor, list[PartLevel]]:
        return self(images), []


class GreyImages(PartSupervisedDataModule):
    """Two batches of grey images of class 0 an epoch, and others to watch."""

    def __init__(self, watched: int = 12) -> None:
        LightningDataModule.__init__(self)
        self.batch_size = 8
        self.watched = [("grey", 0)] * watched

    def prepare_data(self) -> None: ...

    def setup(self, stage: str) -> None: ...

    def watched_images(self, epoch: int) -> Any:
        return [sample() for _ in self.watched]

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader([sample() for _ in range(8)], batch_size=4)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Any]:
        return self.train_dataloader()


def sample() -> dict[str, Any]:
    return {"image": torch.full((3, 32, 32), 128, dtype=torch.uint8), "label": 0}


class CountedSteps(MPM):
    """Counts the gradients that the attack takes in each training step."""

    def on_train_start(self) -> None:
        self.gradients: list[int] = []

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        assert isinstance(self.network, Bumpy)
        before = self.network.calls
        loss = super().training_step(batch, batch_idx)
        self.gradients.append(self.network.calls - before)
        return loss


def module(network: Bumpy) -> CountedSteps:
    torch.manual_seed(0)
    attack = TrainingAttack(eps=PixelDistance(EPS), one_step_until=1.0)
    model = CountedSteps(
        torch.ones(2, 3, dtype=torch.bool),
        NetworkSettings("bypass", "resnet18", TINY, image_size=32),
        attack=attack,
        part_loss_weight=0.0,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e-4),  # type: ignore[arg-type]
    )
    model.network = network  # type: ignore[assignment]
    model.objective.loss = _loss  # type: ignore[method-assign]
    return model


def _loss(surrogate: Any, clean: Tensor, labels: Tensor, logits: Tensor) -> Tensor:
    """Without another pass of the surrogate, so that those of the attack can be counted."""
    return nn.functional.cross_entropy(logits, labels)


def trainer(folder: Path, epochs: int = EPOCHS) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[OverfittingWatch()],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        inference_mode=False,
    )


def watch_of(run: Trainer) -> OverfittingWatch:
    return next(c for c in run.callbacks if isinstance(c, OverfittingWatch))  # type: ignore[attr-defined]


def fit(run: Trainer, model: MPM, **more: Any) -> None:
    # `on_save_checkpoint` of MPM asks a real network for its normalisation
    model.on_save_checkpoint = model.on_load_checkpoint = lambda checkpoint: None  # type: ignore
    run.fit(model, datamodule=GreyImages(), weights_only=True, **more)


def test_training_goes_on_with_pgd_2_after_a_collapse_and_when_resumed(tmp_path: Path) -> None:
    model, run = module(Bumpy()), trainer(tmp_path)
    with pytest.warns(UserWarning, match=r"overfitting in epoch 1: of 12 .* 12 are .* 0 under PGD"):
        fit(run, model)
    watch = watch_of(run)
    assert [(one.one_step, one.pgd) for one in watch.history] == [(12, 0), (12, 0)]
    assert watch.ended_in == 2
    assert model.gradients == [1, 1, 1, 1, 2, 2, 2, 2]
    assert run.callback_metrics["val/one_step_ended_in"] == 2
    assert run.callback_metrics["val/watched_pgd_acc"] == 0

    run.save_checkpoint(tmp_path / "cut.ckpt")
    again, longer = module(Bumpy()), trainer(tmp_path, EPOCHS + 1)
    fit(longer, again, ckpt_path=tmp_path / "cut.ckpt")
    assert again.gradients == [2, 2]
    assert watch_of(longer).history == watch.history
    assert watch_of(longer).ended_in == 2


def test_a_robust_network_keeps_its_one_step(tmp_path: Path) -> None:
    model, run = module(Bumpy(bump=0.1)), trainer(tmp_path)
    fit(run, model)
    watch = watch_of(run)
    assert [(one.epoch, one.one_step, one.pgd) for one in watch.history] == [
        (epoch, 12, 12) for epoch in range(EPOCHS - 1)
    ]
    assert watch.ended_in is None
    assert model.gradients == [1] * 2 * EPOCHS
    assert "val/one_step_ended_in" not in run.callback_metrics


def test_nothing_to_watch_is_refused(tmp_path: Path) -> None:
    run, model = trainer(tmp_path), module(Bumpy())
    with pytest.raises(ValueError, match=r"needs data\.init_args\.watch_images"):
        run.fit(model, datamodule=GreyImages(watched=0))
