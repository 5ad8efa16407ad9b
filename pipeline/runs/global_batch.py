"""The callback that lets a training go on with other processes, but not with other batches."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from datamodules.files.errors import UserError

ENTRY = "global_batch"


class SameGlobalBatch(Callback):
    """Notes in checkpoints how many images a step has over all processes, and keeps to it.

    The place in an epoch is counted in batches and the learning rate follows the number of steps:
    with other global batches a resumed run would skip or repeat images and end at another step.
    """

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Notes the number of images."""
        checkpoint[ENTRY] = self.images(trainer)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuses a fit that would go on with another number of images.

        Raises:
            UserError: naming the batch size that keeps it.
        """
        before, now = checkpoint.get(ENTRY), self.images(trainer)
        if trainer.state.fn != TrainerFn.FITTING or before in (None, now):
            return
        processes = trainer.world_size * trainer.accumulate_grad_batches
        mend = "run it on a number of processes that divides this"
        if before % processes == 0:
            mend = f"give --data.init_args.batch_size={before // processes}"
        raise UserError(
            f"the checkpoint was trained with {before} images a step over all processes, now there "
            f"would be {now} ({trainer.world_size} processes): {mend}"
        )

    @staticmethod
    def images(trainer: Trainer) -> int:
        """Images of a step over all processes."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        return int(data.batch_size * trainer.world_size * trainer.accumulate_grad_batches)
