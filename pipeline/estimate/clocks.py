"""Callbacks that time steps and count their FLOPs."""

import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from modules.mpm import MPM
from pipeline.estimate.extent import StepKind
from pipeline.export.inference_cost import flop_counter


class PhasedSteps(Callback):
    """Goes through the kinds of steps, `length` steps each.

    Args:
        kinds: of the phases.
        length: steps in each.
    """

    def __init__(self, kinds: Sequence[StepKind], length: int) -> None:
        self.kinds = kinds
        self.length = length

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Switches to the training attack of the phase."""
        if isinstance(pl_module, MPM):
            name = self.kinds[batch_idx // self.length].name
            pl_module.training_attack = replace(
                pl_module.training_attack,
                clean_epochs=sys.maxsize if name == "clean" else 0,
                one_step_until=1.0 if name == "one-step" else None,
            )


class StepClock(PhasedSteps):
    """Takes the time at the end of every step."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts with no marks."""
        self.marks: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Marks the time when the device is done."""
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        self.marks.append(time.perf_counter())

    def step_seconds(self, phase: int, warm_up: int, accumulated: int) -> float:
        """Median time of a batch, means over the batches of one optimiser step."""
        first = phase * self.length
        marks = self.marks[first + warm_up - 1 : first + self.length : accumulated]
        return statistics.median(b - a for a, b in itertools.pairwise(marks)) / accumulated


class StepFlops(PhasedSteps):
    """Counts the FLOPs of every step: convolutions and matrix products."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts with no counts."""
        self.counts: list[int] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Starts the counter."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self.counter = flop_counter()
        self.counter.__enter__()

    def on_train_batch_end(self, *_: Any) -> None:
        """Stops the counter."""
        self.counter.__exit__(None, None, None)
        self.counts.append(self.counter.get_total_flops())
