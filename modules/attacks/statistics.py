"""Which statistics norm layers use while a network is attacked."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

StatisticsMode = Literal["eval", "train"]


@contextmanager
def under_attack(network: nn.Module, mode: StatisticsMode = "eval") -> Iterator[None]:
    """Puts a network into the mode of an attack and brings it back as it was.

    Args:
        network: its running statistics stay untouched.
        mode: `eval` normalises with the running statistics (PartImageNet++'s code), `train` with
            those of the attacked batch.
    """
    modes = {module: module.training for module in network.modules()}
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    tracking = [norm.track_running_stats for norm in norms]
    network.train(mode == "train")
    for norm in norms if mode == "train" else []:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm, tracked in zip(norms, tracking, strict=True):
            norm.track_running_stats = tracked
        for module, training in modes.items():
            module.training = training
