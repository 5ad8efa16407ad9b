"""Parameter groups and the learning rate's course."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

WARMUP_START = 0.005  # the authors' code: from 1e-3 to 0.2


def decay_groups(parameters: Iterable[nn.Parameter], decay_all: bool) -> list[dict[str, Any]]:
    """Parameter groups with no weight decay on biases and norm parameters, as timm's `sgd` has.

    Args:
        parameters: those that need no gradient are left out.
        decay_all: one group, everything decays.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if decay_all:
        return [{"params": trained}]
    matrices = [parameter for parameter in trained if parameter.ndim > 1]
    vectors = [parameter for parameter in trained if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def by_step(optimizer: Optimizer, factor: Callable[[int], float]) -> OptimizerLRSchedulerConfig:
    """The optimiser and its learning rate's course, for Lightning's `configure_optimizers`.

    Args:
        optimizer: with its full learning rates.
        factor: of the learning rates at an optimiser step, counted from 0.
    """
    # A plain function, which leaves nothing in a checkpoint.
    scheduler = LambdaLR(optimizer, lambda step: factor(step))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def multistep(step: int, total: float, milestones: Iterable[float]) -> float:
    """Factor of the learning rate that falls to a tenth at each milestone.

    Args:
        step: step, from 0.
        total: steps of the whole training.
        milestones: fractions of the training.
    """
    return 0.1 ** sum(step >= fraction * total for fraction in milestones)


def warmup_cosine(step: int, warmup: float, total: int, floor: float) -> float:
    """Factor of the learning rate: linear warm-up, then a cosine to `floor`.

    Args:
        step: optimiser step, from 0.
        warmup: steps of the warm-up, which starts at 0.005.
        total: steps of the whole training.
        floor: last factor.
    """
    if step < warmup:
        return WARMUP_START + (1 - WARMUP_START) * step / warmup
    return cosine(step, warmup, total, floor)


def cosine(step: int, start: float, total: int, floor: float = 0.0) -> float:
    """Factor of the learning rate: half a cosine from 1 to `floor`.

    Args:
        step: optimiser step, not before `start`.
        start: step at which it begins to fall.
        total: steps of the whole training.
        floor: last factor.
    """
    progress = min(1.0, (step - start) / max(1, total - start))
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2
