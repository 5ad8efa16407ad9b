"""The attack of adversarial training and its course over the epochs."""

from dataclasses import dataclass

from datamodules.files.errors import UserError
from modules.attacks.balls import Norm
from modules.attacks.pgd import PGD
from modules.attacks.pixel_units import PixelDistance
from modules.attacks.statistics import StatisticsMode

ONE_STEP = 1.25  # of Fast AT (Wong et al. 2020), in radii
WATCH_STEPS = 10


@dataclass(frozen=True)
class TrainingAttack:
    """PGD in training and validation; epochs are counted from 0.

    Attributes:
        eps: radius of the ball in pixel units; 0 trains on clean images.
        steps: steps t, of size `2 * eps / t`.
        norm: norm of the ball.
        restarts: random starts.
        keep_best: keep each image's best iterate, see `PGD`.
        mode: norm statistics under attack, `eval` or those of the batch.
        clean_epochs: first epochs on clean images, where no clean checkpoint is at hand.
        eps_warmup_epochs: adversarial epochs over which eps grows linearly to its value.
        step_warmup_epochs: adversarial epochs n over which the step grows as 0, 1/n, 2/n, ...
        val_steps: steps of the attack that `val/robust_acc` measures, of size `eps / 4`.
        one_step_until: fraction of the training whose attack is one step of `1.25 * eps` from a
            random start (Fast AT, Wong et al. 2020), in whole epochs; `steps` are taken after it.
            None for all.

    Raises:
        UserError: if `one_step_until` is no fraction.
    """

    eps: PixelDistance = PixelDistance("4/255")
    steps: int = 2
    norm: Norm = "linf"
    restarts: int = 1
    keep_best: bool = False
    mode: StatisticsMode = "eval"
    clean_epochs: int = 0
    eps_warmup_epochs: int = 0
    step_warmup_epochs: int = 0
    val_steps: int = 10
    one_step_until: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= (self.one_step_until or 0) <= 1:
            raise UserError(f"attack.one_step_until={self.one_step_until} is not between 0 and 1")

    def of_training(self, *, one_step: bool = False) -> PGD:
        """The attack on training images, by default that of the end of the training."""
        return PGD(
            self.eps,
            1 if one_step else self.steps,
            ONE_STEP * self.eps if one_step else None,
            norm=self.norm,
            restarts=self.restarts,
            keep_best=self.keep_best,
        )

    def of_validation(self) -> PGD:
        """The attack on validation images."""
        return PGD(self.eps, self.val_steps, self.eps / 4, norm=self.norm)

    def of_watch(self) -> PGD:
        """PGD-10, under which robustness that one step feigns is none."""
        return PGD(self.eps, WATCH_STEPS, self.eps / 4, norm=self.norm)

    def is_one_step(self, epoch: int, epochs: int | None) -> bool:
        """Whether an epoch trains on images that one step made.

        Args:
            epoch: of the training.
            epochs: of the whole training.

        Raises:
            UserError: if that depends on a number of epochs that is not known.
        """
        if not self.one_step_until or not self.attacks_in(epoch):
            return False
        if epochs is None or epochs < 1:
            raise UserError(
                "attack.one_step_until is a share of the epochs: set trainer.max_epochs"
            )
        return epoch < round(self.one_step_until * epochs)

    def attacks_in(self, epoch: int) -> bool:
        """Whether an epoch trains on adversarial images."""
        return self.eps > 0 and epoch >= self.clean_epochs

    def eps_factor(self, epoch: int) -> float:
        """Share of `eps` that the attack has in an epoch, in (0, 1]."""
        return min(1.0, (epoch - self.clean_epochs + 1) / max(1, self.eps_warmup_epochs))

    def step_factor(self, epoch: int) -> float:
        """Share of the step size that the attack has in an epoch, in [0, 1]."""
        if not self.step_warmup_epochs:
            return 1.0
        return min(1.0, (epoch - self.clean_epochs) / self.step_warmup_epochs)
