"""The callback that ends one-step attacks once a network is robust to nothing else."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Subset

from datamodules.files.errors import UserError
from datamodules.part_supervised import PartSupervisedDataModule
from modules.attacks.pgd import PGD
from modules.attacks.statistics import under_attack
from modules.mpm import MPM
from modules.networks.images import as_float

FEWEST = 5  # images that must be wrong under PGD-10 alone: a sign test at 1/32


@dataclass(frozen=True)
class WatchedAccuracy:
    """What a network answers right after an epoch.

    Attributes:
        epoch: from 0.
        images: number of held-out images.
        one_step: of them right under the one-step attack of the training.
        pgd: of them right under PGD-10.
    """

    epoch: int
    images: int
    one_step: int
    pgd: int


def collapsed(before: WatchedAccuracy | None, now: WatchedAccuracy) -> bool:
    """Whether a network overfitted the one-step attack catastrophically (Wong et al. 2020, §5).

    It withstands one step, but not PGD-10: that leaves fewer than half of the images right that one
    step does, and `FEWEST` fewer at least. The same holds early on of a network that was trained
    on clean images before, whose robustness is about to come: it must also not have risen.

    Args:
        before: accuracies after the last epoch that was watched; None if there is none.
        now: accuracies after this one.
    """
    apart = 2 * now.pgd < now.one_step and now.one_step - now.pgd >= FEWEST
    return apart and before is not None and now.pgd <= before.pgd


class OverfittingWatch(Callback):
    """Measures PGD-10 on held-out images after each epoch of one-step attacks, on all ranks alike.

    Where the network has collapsed, all further epochs take the steps of the full attack, which
    brings robustness back (Li et al. 2020, "Towards understanding fast adversarial training"). That
    is said in a line and kept in checkpoints; `metrics.json` has the epoch, `one_step_ended_in`,
    and the last measurements. The images are `watch_images` of `PartSupervisedDataModule`, of the
    size of the epoch. Other modules and attacks are left alone.

    Attributes:
        history: what was measured, by epoch.
        ended_in: first epoch without one-step attacks because of a collapse; None for no collapse.
    """

    def __init__(self) -> None:
        self.history: list[WatchedAccuracy] = []
        self.ended_in: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells the module what a checkpoint remembers.

        Raises:
            UserError: if one-step attacks are asked for and there is nothing to watch.
        """
        if not isinstance(pl_module, MPM) or not pl_module.training_attack.one_step_until:
            return
        pl_module.one_step_ended = self.ended_in is not None
        if not _data(trainer).watched:
            raise UserError(
                "attack.one_step_until needs data.init_args.watch_images of 1 or more and at least "
                "8 training images: robustness to one step may be robustness to nothing else"
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judges the epoch before, once: a training that goes on in an epoch knows the outcome."""
        epoch = trainer.current_epoch - 1
        known = bool(self.history) and self.history[-1].epoch >= epoch
        if known or epoch < 0 or not isinstance(pl_module, MPM):
            return
        if not pl_module.takes_one_step(epoch):
            return
        now = self._measure(trainer, pl_module, epoch)
        before = self.history[-1] if self.history else None
        self.history.append(now)
        if collapsed(before, now):
            self.ended_in = epoch + 1
            pl_module.one_step_ended = True
            rank_zero_warn(
                f"catastrophic overfitting in epoch {epoch}: of {now.images} held-out images "
                f"{now.one_step} are right under the one-step attack, {now.pgd} under PGD-10; "
                f"training goes on with PGD-{pl_module.attack.steps}"
            )

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hands the last measurement, and whether there was a collapse, to `metrics.json`."""
        if not self.history:
            return
        last = self.history[-1]
        pl_module.log("val/watched_one_step_acc", last.one_step / last.images)
        pl_module.log("val/watched_pgd_acc", last.pgd / last.images)
        if self.ended_in is not None:
            pl_module.log("val/one_step_ended_in", float(self.ended_in))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, nothing where nothing was watched."""
        if not self.history:
            return {}
        return {"history": [asdict(one) for one in self.history], "ended_in": self.ended_in}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with what a checkpoint kept."""
        self.history = [WatchedAccuracy(**one) for one in state_dict["history"]]
        self.ended_in = state_dict["ended_in"]

    def _measure(self, trainer: Trainer, module: MPM, epoch: int) -> WatchedAccuracy:
        """Accuracies of the weights as they are trained, no average, over all ranks' shares."""
        data = _data(trainer)
        images = data.watched_images(epoch)
        mine = Subset(images, range(trainer.global_rank, len(images), trainer.world_size))
        attacks = (module.one_step_attack, module.training_attack.of_watch())
        right = torch.zeros(len(attacks), device=module.device)
        generator = torch.Generator(module.device).manual_seed(epoch)
        with under_attack(module.network), trainer.precision_plugin.forward_context():
            for batch in DataLoader(mine, data.batch_size):
                clean = as_float(batch["image"].to(module.device))
                labels = batch["label"].to(module.device)
                right += torch.stack(
                    [_right(module, attack, clean, labels, generator) for attack in attacks]
                )
        one_step, pgd = trainer.strategy.reduce(right, reduce_op="sum").int().tolist()  # type: ignore[union-attr]
        return WatchedAccuracy(epoch, len(images), one_step, pgd)


def _right(
    module: MPM, attack: PGD, images: Tensor, labels: Tensor, generator: torch.Generator
) -> Tensor:
    """How many images are right under an attack."""

    def loss(points: Tensor) -> Tensor:
        return cross_entropy(module.network.surrogate(points), labels, reduction="none")

    adversarial = attack(images, loss, generator)
    with torch.no_grad():
        return (module.network(adversarial).argmax(1) == labels).sum()


def _data(trainer: Trainer) -> PartSupervisedDataModule:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, PartSupervisedDataModule)
    return data
