"""Export of the trained recogniser at the end of stage 3."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn

from datamodules.files.errors import MissingInputError
from modules.mpm import MPM
from modules.state_dicts.weight_files import load_strictly, read_state


class ExportRecogniser(Callback):
    """Writes the best checkpoint's network to `export/`, where it is plain as a timm folder."""

    def on_fit_end(self, trainer: Trainer, pl_module: MPM) -> None:  # type: ignore[override]
        """Loads `best.ckpt` (averaged weights, if any) and exports it, on rank 0.

        A dry run leaves nothing that could be taken for a result.

        Raises:
            MissingInputError: if the checkpoint is gone.
        """
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        best = next(
            callback.best_model_path
            for callback in trainer.checkpoint_callbacks
            if isinstance(callback, ModelCheckpoint) and callback.monitor is not None
        )
        if best and not Path(best).is_file():
            raise MissingInputError(
                f"{best}, which this run chose to export, was moved or deleted: put it back and "
                "start the run again, or train anew under another NAME="
            )
        if best:
            load_strictly(pl_module, read_state(Path(best)), best)
        else:  # a run too short for a validation; an average of the weights is already in place
            rank_zero_warn("no validation ran, so the last weights are exported, not the best")
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        crop_pct = data.image_size / data.val_resize
        pl_module.export(Path(trainer.default_root_dir) / "export", crop_pct)
