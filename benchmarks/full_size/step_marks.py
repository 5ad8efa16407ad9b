"""A callback that writes down when steps begin and end."""

import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

FILE = "step_marks.jsonl"
CUT = "FULL_SIZE_CUT"  # environment variable


@dataclass(frozen=True)
class Mark:
    """A step's beginning or end.

    Attributes:
        event: which of them.
        step: optimiser steps done before the batch or, of predictions, the shard that it is of.
        wall: seconds since the epoch of the system's clock.
        cpu: seconds of processor time of the process and its threads.
        parameters: of the module.
    """

    event: Literal["begins", "ends"]
    step: int
    wall: float
    cpu: float
    parameters: int


class StepMarks(Callback):
    """Adds a line to `step_marks.jsonl` in the run folder where a batch begins or ends.

    A training kills itself at its second batch where the environment has `CUT`: a small network's
    steps are too short to be cut from outside.
    """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Checkpoints of the steps before are whole by now."""
        self._mark(trainer, pl_module, "begins", trainer.global_step)
        if CUT in os.environ and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The optimiser has stepped."""
        self._mark(trainer, pl_module, "ends", trainer.global_step)

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Of stage 2."""
        self._mark(trainer, pl_module, "begins", batch["shard"])

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Of stage 2."""
        self._mark(trainer, pl_module, "ends", batch["shard"])

    def _mark(
        self,
        trainer: Trainer,
        module: LightningModule,
        event: Literal["begins", "ends"],
        step: int,
    ) -> None:
        parameters = sum(one.numel() for one in module.parameters())
        mark = Mark(event, step, time.time(), time.process_time(), parameters)
        with (Path(trainer.default_root_dir) / FILE).open("a") as file:
            file.write(json.dumps(asdict(mark)) + "\n")


def read_marks(run: Path) -> list[Mark]:
    """The marks of a run folder, in order; a line that is being written is left out."""
    file = run / FILE
    if not file.is_file():
        return []
    lines = file.read_text().split("\n")[:-1]
    return [Mark(**json.loads(line)) for line in lines]
