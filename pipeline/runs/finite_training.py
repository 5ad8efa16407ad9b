"""The callback that ends a training at its first step that is not finite."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from datamodules.files.errors import UserError
from modules.state_dicts.finite import all_finite, listed, named_tensors, not_finite, require_finite

READ_EVERY = 50  # updates between two looks at a GPU, which is waited for then
# Each step that a scaler skips halves its scale: so many in a row leave nothing of any scale.
MOST_SKIPPED = 40
LOSS, GRADIENT = "loss", "gradient"
SMALLER = "a smaller learning rate (--model.init_args.optimizer.init_args.lr)"


@dataclass(frozen=True)
class Step:
    """An update of the weights.

    Attributes:
        number: of all updates, from 1.
        epoch: from 0.
        lr: highest learning rate of all parameter groups.
    """

    number: int
    epoch: int
    lr: float


class FiniteTraining(Callback):
    """Ends a training whose loss, gradient or weights are not finite, on all ranks alike.

    Loss and gradient are judged on their device at every update, and the verdicts are read every
    few updates (on a CPU at each, before the weights change), before a validation, before
    a checkpoint is written and at the end. So no checkpoint holds a state from after the first bad
    update, and such a run neither exports nor is complete. Where the module keeps `loss_terms`,
    the terms of its last loss by name, the message names the bad one.

    Under a gradient scaler (float16) an update whose gradient is not finite is skipped, as it is
    meant to be; such updates are counted (`train/skipped_steps`, a warning at the end), and only
    `MOST_SKIPPED` in a row end the training.

    It must come after a callback that averages the weights, so that it sees the average, too.

    Args:
        read_every: updates between two looks; by default 1 on a CPU and `READ_EVERY` elsewhere.

    Attributes:
        skipped: updates that the scaler skipped, those before a resumption included.
    """

    def __init__(self, read_every: int | None = None) -> None:
        self.read_every = read_every
        self.skipped = 0
        self._in_a_row = 0
        self._names: tuple[str, ...] = ()
        self._losses: list[Tensor] = []  # of the batches of this update: which terms are finite
        self._finite: list[tuple[Step, Tensor]] = []  # not read yet: (terms + 1,), on the device

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Judges the terms of the loss."""
        terms = {**getattr(pl_module, "loss_terms", {}), LOSS: loss.detach()}
        if self._names != tuple(terms):
            self._read(trainer)
            self._names, self._losses = tuple(terms), []
        self._losses.append(torch.stack([term.float() for term in terms.values()]).isfinite())

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Judges the gradient, which all ranks share."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradient = all_finite(p.grad for p in parameters if p.grad is not None)
        losses = torch.stack(self._losses).all(0)
        step = _step(trainer, optimizer, trainer.global_step + 1)
        self._finite.append((step, torch.cat([losses, gradient.to(losses.device)[None]])))
        self._losses = []
        every = self.read_every or (1 if losses.device.type == "cpu" else READ_EVERY)
        if len(self._finite) >= every:
            self._read(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reads what is known, as a validation is long."""
        self._read(trainer)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the weights that are validated, the average where there is one."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._require_finite(trainer, "weight", pl_module.state_dict())
        else:
            require_finite(pl_module.state_dict(), str(trainer.ckpt_path or "the network"))  # type: ignore[attr-defined]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses a figure that would choose the best checkpoint and is none.

        Raises:
            UserError: naming it.
        """
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        for checkpoint in _checkpoints(trainer):
            value = trainer.callback_metrics.get(checkpoint.monitor or "")
            fine = value is None or bool(torch.isfinite(value))
            if not trainer.strategy.reduce_boolean_decision(fine):
                raise UserError(
                    f"the validation after step {trainer.global_step} gives {checkpoint.monitor} = "
                    f"{value}, so it can choose no checkpoint: set best_checkpoint.monitor to "
                    "another figure, or validate on data on which this one is defined"
                )

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Looks at all that is about to be saved, so that the last checkpoint stays a good one."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self._read(trainer)
        for what, key in (
            ("weight", "state_dict"),
            ("weight", "current_model_state"),  # where state_dict is their average
            ("state of the optimiser", "optimizer_states"),
        ):
            self._require_finite(trainer, what, dict(named_tensors(checkpoint.get(key))))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs how many updates were skipped."""
        self._read(trainer)
        if _scales(trainer):
            pl_module.log("train/skipped_steps", float(self.skipped))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the last weights, and says how many updates were skipped."""
        self._read(trainer)
        self._require_finite(trainer, "weight", pl_module.state_dict())
        if self.skipped:
            rank_zero_warn(
                f"{self.skipped} of {trainer.global_step} steps were skipped, as their gradients "
                "overflowed in half precision"
            )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with what a checkpoint kept."""
        self.skipped = state_dict["skipped"]

    def error(self, trainer: Trainer, what: str) -> UserError:
        """What to raise where a network gave up because of what is not finite.

        Args:
            trainer: of the fit.
            what: what was not finite, such as `the logits are not finite`.
        """
        for step, finite in self._finite:  # of this rank alone: the others may be elsewhere
            if wrong := _wrong(self._names, finite.logical_not().tolist()):
                return _diverged(trainer, step, wrong)
        return _diverged(trainer, None, what)

    def _read(self, trainer: Trainer) -> None:
        """Waits for the verdicts on the device, makes them those of all ranks, and judges."""
        if not self._finite:
            return
        steps, finite = zip(*self._finite, strict=True)
        self._finite = []
        wrong = trainer.strategy.reduce(torch.stack(finite).logical_not().int(), reduce_op="max")
        for step, flags in zip(steps, wrong.tolist(), strict=True):  # type: ignore[union-attr]
            self._in_a_row = self._in_a_row + 1 if any(flags) else 0
            if not self._in_a_row:
                continue
            what = _wrong(self._names, flags)
            if _scales(trainer):
                self.skipped += flags[-1]
                if self._in_a_row < MOST_SKIPPED:
                    continue
                what += f", as in the {MOST_SKIPPED - 1} steps before it"
            raise _diverged(trainer, step, what)

    def _require_finite(self, trainer: Trainer, what: str, state: Mapping[str, Tensor]) -> None:
        """Refuses a state that is not finite on any rank, such as statistics of batch norms."""
        names = [] if all_finite(state.values()) else not_finite(state)
        if not trainer.strategy.reduce_boolean_decision(not names):
            where = listed(names) or "another process"
            raise _diverged(trainer, None, f"a {what} is not finite ({where})")


def _diverged(trainer: Trainer, step: Step | None, what: str) -> UserError:
    """The error of a training that diverged in a step, by default the last one."""
    step = step or _step(trainer, trainer.optimizers[0], trainer.global_step)
    kept = _last_good(trainer)
    start = "no checkpoint was written before"
    if kept is not None:
        start = (
            "to start from the last checkpoint before it, whose weights are finite, add "
            f"--ckpt_path={kept}"
        )
    return UserError(
        f"training diverged in step {step.number} (epoch {step.epoch}, learning rate {step.lr:g}): "
        f"{what}; begin a new run (another NAME=) with {SMALLER}; {start}"
    )


def _wrong(names: tuple[str, ...], flags: list[int] | list[bool]) -> str:
    """What is not finite, "" where all is; flags are of the terms, the loss and the gradient."""
    wrong = [name for name, flag in zip((*names, GRADIENT), flags, strict=True) if flag]
    terms = [name for name in wrong if name not in (LOSS, GRADIENT)]
    if not wrong:
        return ""
    shown = terms or [f"the {wrong[0]}"]
    return f"{' and '.join(shown)} {'are' if len(shown) > 1 else 'is'} not finite"


def _step(trainer: Trainer, optimizer: Optimizer, number: int) -> Step:
    lr = max(float(group["lr"]) for group in optimizer.param_groups)
    return Step(number, trainer.current_epoch, lr)


def _scales(trainer: Trainer) -> bool:
    """Whether a scaler skips updates whose gradient is not finite."""
    return getattr(trainer.precision_plugin, "scaler", None) is not None


def _checkpoints(trainer: Trainer) -> list[ModelCheckpoint]:
    """The checkpoint callbacks, those that watch no figure first."""
    found = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
    return sorted(found, key=lambda checkpoint: checkpoint.monitor is not None)


def _last_good(trainer: Trainer) -> Path | None:
    """The last checkpoint of this fit, else the best, else the one that it started from."""
    names = [c.best_model_path for c in _checkpoints(trainer)]
    names.append(str(trainer.ckpt_path or ""))  # type: ignore[attr-defined]
    return next((Path(name) for name in names if Path(name).is_file()), None)
