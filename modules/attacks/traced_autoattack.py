"""pyautoattack's AutoAttack, watched: the same calls, and which of its attacks broke an image."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import pyautoattack
import torch
from torch import Tensor

# The DLR losses divide by differences that involve the third (targeted: fourth) largest logit.
MIN_CLASSES = {"apgd-dlr": 3, "apgd-t": 4}
STANDING, WRONG_BEFORE = "", "clean"


class Outcome(NamedTuple):
    """What an attack left.

    Attributes:
        images: adversarial images `(B, 3, H, W)` in [0, 1].
        predictions: classes `(B,)` that the attack saw the network give them; None if the attack
            does not say.
        broken_by: name of the attack that broke each image, `""` if it stands, `"clean"` if it
            was wrong before any attack; None if the attack does not say.
    """

    images: Tensor
    predictions: Tensor | None = None
    broken_by: list[str] | None = None


class TracedAutoAttack(pyautoattack.AutoAttack):
    """AutoAttack that also tells which of its attacks broke an image.

    It looks at the logits that `run_standard_evaluation` computes anyway, so the outcomes are
    those of the parent class and nothing is computed twice. With few classes the targeted attacks
    take all other classes, and attacks whose loss does not exist are left out.

    Args:
        model: classifier of pixels in [0, 1].
        num_classes: number of its logits.
        version: as of the parent class; `custom` has the settings of `standard`.
        attacks: what runs, and in which order, for `custom`.
        settings: further arguments of the parent class.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        num_classes: int,
        *,
        version: str,
        attacks: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        super().__init__(
            model,
            version="standard" if version == "custom" else version,  # type: ignore[arg-type]
            **settings,
        )
        if version == "custom":
            self.attacks_to_run = list(attacks)  # type: ignore[arg-type]
        for targeted in (self.apgd_targeted, self.fab):
            targeted.n_target_classes = min(targeted.n_target_classes, num_classes - 1)
        names = self.attacks_to_run or []
        self.attacks_to_run = [n for n in names if num_classes >= MIN_CLASSES.get(n, 2)]
        for name in names:
            if name not in self.attacks_to_run:
                self.logger.warning(
                    f"{name} is left out, as its loss needs {MIN_CLASSES[name]} classes or more: "
                    "the result is not that of the whole AutoAttack"
                )
        for attack in (self.apgd, self.apgd_targeted, self.fab, self.square):
            attack.perturb = partial(self._perturb, attack.perturb)
        self._labels: list[Tensor] = []
        self._guesses: list[Tensor] = []

    def run(self, images: Tensor, labels: Tensor) -> Outcome:
        """Attacks images `(B, 3, H, W)` in [0, 1] with classes `(B,)` as one batch."""
        self._labels, self._guesses = [], []
        adversarial, predictions = self.run_standard_evaluation(
            images, labels, batch_size=len(images)
        )
        return Outcome(adversarial, predictions, self._broken_by(labels))

    def get_logits(self, x: Tensor) -> Tensor:
        """Logits; the parent asks for those of clean images and of each attack's result."""
        logits = super().get_logits(x)
        # before the first attack the last ones are those of the clean images
        if len(self._guesses) > len(self._labels):
            self._guesses.pop()
        self._guesses.append(logits.max(dim=1)[1])
        return logits

    def _perturb(
        self, perturb: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor
    ) -> Tensor:
        self._labels.append(labels)
        return perturb(images, labels)

    def _broken_by(self, labels: Tensor) -> list[str]:
        clean, *attacked = self._guesses
        right = clean == labels
        broken = [STANDING if stands else WRONG_BEFORE for stands in right.tolist()]
        standing = right.nonzero().flatten()
        # one batch, so one call of each attack, in their order
        names = self.attacks_to_run or []
        for name, wanted, guesses in zip(names, self._labels, attacked, strict=False):
            fooled = guesses != wanted
            for index in standing[fooled].tolist():
                broken[index] = name
            standing = standing[~fooled]
        return broken
