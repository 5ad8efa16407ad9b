"""The course of the learning rate, the same kinds for all training stages."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from datamodules.files.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then half a cosine or a tenth of the rate at each milestone.

    Attributes:
        warmup_steps: length of the warm-up in steps ...
        warmup_epochs: ... or, where that is 0, in epochs.
        warmup_start: factor of the first step; None for the first of `warmup_steps` equal steps.
        shape: what follows the warm-up.
        milestones: fractions of the training for `multistep`.
        min_lr_ratio: floor of the cosine, as a share of the learning rate.

    Raises:
        UserError: if `warmup_epochs` comes without `warmup_start`.
    """

    warmup_steps: int = 0
    warmup_epochs: float = 0.0
    warmup_start: float | None = None
    shape: Literal["cosine", "multistep"] = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)
    min_lr_ratio: float = 0.0

    def __post_init__(self) -> None:
        if self.warmup_epochs and self.warmup_start is None:
            raise UserError("warmup_epochs needs warmup_start: equal steps have warmup_steps")

    def first(self) -> float:
        """Factor of the learning rate at step 0, which no length is needed for."""
        if not self.warmup_steps and not self.warmup_epochs:
            return 1.0
        return self._warmup(0, self.warmup_steps)

    def factor(self, step: int, total: float, epochs: int) -> float:
        """Factor of the learning rate.

        Args:
            step: step, from 0.
            total: steps of the whole training.
            epochs: epochs of the whole training.
        """
        warmup = self.warmup_steps or self.warmup_epochs * total / max(1, epochs)
        if step < warmup:
            return self._warmup(step, warmup)
        if self.shape == "multistep":
            return 0.1 ** sum(step >= fraction * total for fraction in self.milestones)
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        share = (1 + math.cos(math.pi * progress)) / 2
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * share

    def _warmup(self, step: int, length: float) -> float:
        if self.warmup_start is None:
            return (step + 1) / max(1, length)
        return self.warmup_start + (1 - self.warmup_start) * step / max(1, length)


class ConfiguredRates(LambdaLR):
    """A schedule of the learning rates of the configuration, whatever a checkpoint was made with.

    A checkpoint holds the full learning rates of its run, and torch would go on with those.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on at the place of the checkpoint; equal learning rates stay as they are, exactly.

        The state of the optimiser must have been loaded before.
        """
        configured = self.base_lrs
        super().load_state_dict(state_dict)
        groups = self.optimizer.param_groups
        for group, new, old in zip(groups, configured, self.base_lrs, strict=True):
            if new != old:
                group["lr"] = group["lr"] / old * new if old else new
                group["initial_lr"] = new
        self.base_lrs = configured
        self._last_lr = [group["lr"] for group in groups]


def scheduled(
    optimizer: Optimizer, schedule: Schedule, extent: Callable[[], tuple[float, int]]
) -> OptimizerLRSchedulerConfig:
    """An optimiser with its schedule, for Lightning's `configure_optimizers`.

    Args:
        optimizer: with its full learning rates; those of groups with an `lr_scale` are multiplied
            by it.
        schedule: of all learning rates, by step.
        extent: gives steps and epochs of the whole training. It is not asked at step 0: it makes
            Lightning build the training loader, and before a checkpoint is restored that loader
            would start at the wrong batch.
    """
    for group in optimizer.param_groups:
        group["lr"] *= group.get("lr_scale", 1.0)

    # A plain function, which leaves nothing in a checkpoint.
    def factor(step: int) -> float:
        return schedule.factor(step, *extent()) if step else schedule.first()

    scheduler = ConfiguredRates(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
