"""Whether the validation that just ended is the one to report of a run."""

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn


def is_best(trainer: Trainer) -> bool:
    """Whether the checkpoint callbacks would keep this state as their best.

    To be asked in `on_validation_end`, which callbacks pass before the checkpoint callbacks do.
    All ranks must ask, as they decide together.

    Returns:
        True too where no checkpoint callback watches a metric, as then the last state counts, and
        outside of a fit, where the state was chosen by the user.
    """
    if trainer.state.fn != TrainerFn.FITTING:
        return True
    watched = [
        (checkpoint, trainer.callback_metrics.get(checkpoint.monitor))
        for checkpoint in trainer.checkpoint_callbacks
        if isinstance(checkpoint, ModelCheckpoint) and checkpoint.monitor is not None
    ]
    decisions = [
        value is not None and checkpoint.check_monitor_top_k(trainer, value)
        for checkpoint, value in watched
    ]
    return any(decisions) or not watched
