"""Export of the trained recogniser at the end of stage 3."""

from pathlib import Path

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from modules.mpm import MPM
from modules.weights import load_strictly, read_state


class ExportRecogniser(Callback):
    """Writes the best checkpoint's plain network to `export/`, loadable by timm."""

    def on_fit_end(self, trainer: Trainer, pl_module: MPM) -> None:  # type: ignore[override]
        """Loads `best.ckpt` (averaged weights, if any) and exports it, on rank 0."""
        if not trainer.is_global_zero:
            return
        best = next(
            callback.best_model_path
            for callback in trainer.checkpoint_callbacks
            if isinstance(callback, ModelCheckpoint) and callback.monitor is not None
        )
        if not best:
            raise ValueError(
                f"{trainer.default_root_dir} has no best checkpoint to export: no validation ran; "
                "set trainer.check_val_every_n_epoch to at most trainer.max_epochs"
            )
        load_strictly(pl_module, read_state(Path(best)), best)
        pl_module.export(Path(trainer.default_root_dir) / "export")
