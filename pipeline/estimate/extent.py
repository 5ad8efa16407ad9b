"""How long a configured training is: devices, images, kinds of steps."""

from typing import Any

import torch
from lightning.pytorch import LightningModule

from datamodules.files.errors import UserError
from modules.mpm import MPM


def kinds_of_steps(module: LightningModule, epochs: int | None) -> dict[str, float]:
    """Kinds of steps and their shares of the run, which sum to 1.

    Args:
        module: of the stage.
        epochs: of the run; None or -1 where it ends after a number of steps.
    """
    if not isinstance(module, MPM):
        return {"training": 1.0}
    if module.training_attack.eps == 0:
        return {"clean": 1.0}
    clean = min(1.0, module.training_attack.clean_epochs / epochs) if epochs and epochs > 0 else 0.0
    return {name: share for name, share in (("clean", clean), ("adversarial", 1 - clean)) if share}


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
