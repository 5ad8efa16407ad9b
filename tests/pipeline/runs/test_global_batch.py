"""A training goes on with other processes only if a step keeps its number of images."""

from types import SimpleNamespace

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn

from pipeline.runs.global_batch import SameGlobalBatch


def trainer(processes: int, batch_size: int, fn: TrainerFn = TrainerFn.FITTING) -> Trainer:
    found: object = SimpleNamespace(
        world_size=processes,
        accumulate_grad_batches=2,
        datamodule=SimpleNamespace(batch_size=batch_size),
        state=SimpleNamespace(fn=fn),
    )
    return found  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("processes", "batch_size", "message"),
    [
        (4, 3, None),
        (2, 6, None),
        (2, 3, r"with 24 images a step .*would be 12 \(2 processes\): give .*batch_size=6"),
        (8, 3, r"with 24 images a step .*would be 48 \(8 processes\): run it on a number of proc"),
    ],
)
def test_the_images_of_a_step(processes: int, batch_size: int, message: str | None) -> None:
    checkpoint: dict[str, object] = {}
    callback, module = SameGlobalBatch(), SimpleNamespace()
    callback.on_save_checkpoint(trainer(4, 3), module, checkpoint)  # type: ignore[arg-type]
    now = trainer(processes, batch_size)
    if message is None:
        callback.on_load_checkpoint(now, module, checkpoint)  # type: ignore[arg-type]
        return
    with pytest.raises(ValueError, match=message):
        callback.on_load_checkpoint(now, module, checkpoint)  # type: ignore[arg-type]
    measured = trainer(processes, batch_size, TrainerFn.VALIDATING)
    callback.on_load_checkpoint(measured, module, checkpoint)  # type: ignore[arg-type]
    callback.on_load_checkpoint(now, module, {})  # type: ignore[arg-type] # of an earlier version
