"""How long a configured training is: devices, images, kinds of steps."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor

from datamodules.files.errors import UserError
from datamodules.images.progressive_resolution import ProgressiveResolution
from modules.attacks.training_attack import TrainingAttack
from modules.mpm import MPM


@dataclass(frozen=True)
class StepKind:
    """Steps that cost the same.

    Attributes:
        name: `clean`, `one-step` or `adversarial`, or `training` where there is one kind only.
        side: of the crops in pixels; None for that of the loader outside a training.
    """

    name: Literal["training", "clean", "one-step", "adversarial"]
    side: int | None = None

    def __str__(self) -> str:
        return self.name if self.side is None else f"{self.name} at {self.side} px"


def kinds_of_steps(
    module: LightningModule, data: LightningDataModule, epochs: int | None
) -> dict[StepKind, float]:
    """Kinds of steps, in their order, and their shares of the run, which sum to 1.

    Args:
        module: of the stage.
        data: of the stage.
        epochs: of the run; None or -1 where it ends after a number of steps.
    """
    if not isinstance(module, MPM):
        return {StepKind("training"): 1.0}
    progressive = getattr(data, "progressive", None)
    return course(module.training_attack, progressive, getattr(data, "image_size", 0), epochs)


def course(
    attack: TrainingAttack,
    progressive: ProgressiveResolution | None,
    full: int,
    epochs: int | None,
) -> dict[StepKind, float]:
    """Kinds of steps of an MPM and their shares, unless overfitting ends its one-step attacks.

    Args:
        attack: of the training.
        progressive: course of the sizes of crops; None for none.
        full: side of crops in pixels at the end.
        epochs: of the run; None or -1 where it ends after a number of steps.
    """
    sides: list[int | None] = [None] * max(1, epochs or 0)
    if progressive is not None:
        sides = [*progressive.sides(full, epochs)]
    if epochs is None or epochs < 1:  # no share of it is clean
        return {StepKind("adversarial" if attack.eps else "clean"): 1.0}
    kinds = Counter(
        StepKind(_attack(attack, epoch, epochs), side) for epoch, side in enumerate(sides)
    )
    return {kind: count / epochs for kind, count in kinds.items()}


def _attack(
    attack: TrainingAttack, epoch: int, epochs: int
) -> Literal["clean", "one-step", "adversarial"]:
    if not attack.attacks_in(epoch):
        return "clean"
    return "one-step" if attack.is_one_step(epoch, epochs) else "adversarial"


def at_side(batch: dict[str, Any], side: int | None) -> dict[str, Any]:
    """A batch as the loader would hand it over at another size of crops, but for their content.

    Args:
        batch: of `PartSupervisedDataModule`.
        side: of the crops in pixels; None leaves it as it is.
    """
    full = batch["image"].shape[-1] if side is not None else 0
    if side in (None, full):
        return batch
    cells = batch["part_labels"].shape[-1] * side // full
    resized = {
        name: _nearest(batch[name], n) for name, n in (("image", side), ("part_labels", cells))
    }
    return batch | resized


def _nearest(maps: Tensor, side: int) -> Tensor:
    chosen = torch.arange(side) * maps.shape[-1] // side
    return maps[..., chosen, :][..., chosen]


def asked_devices(trainer: Any) -> int:
    """Devices that a configuration asks for, over all nodes.

    Args:
        trainer: its `trainer` section.
    """
    devices = trainer.devices
    if isinstance(devices, list):
        devices = len(devices)
    if not str(devices).isdigit() or int(devices) < 1:
        devices = max(1, torch.cuda.device_count())
    return int(devices) * int(trainer.num_nodes or 1)


def images_a_device(trainer: Any, per_epoch: int, per_step: int, devices: int) -> float:
    """Images that one device sees; Lightning ends at whichever of epochs and steps is first.

    Args:
        trainer: the configuration's `trainer` section.
        per_epoch: images of an epoch, over all devices.
        per_step: images of one optimiser step on one device.
        devices: that share an epoch.

    Raises:
        UserError: if the run never ends.
    """
    limits = []
    if trainer.max_steps and trainer.max_steps > 0:
        limits.append(float(trainer.max_steps * per_step))
    if trainer.max_epochs and trainer.max_epochs > 0:
        limits.append(trainer.max_epochs * per_epoch / devices)
    if not limits:
        raise UserError("the run never ends: set trainer.max_epochs or trainer.max_steps")
    return min(limits)
