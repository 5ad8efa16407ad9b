"""Parameter groups and the learning rate's course."""

import math
from collections.abc import Iterable
from typing import Any

from torch import nn

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
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2
