"""pyautoattack's AutoAttack, watched: the same calls, and which of its attacks broke an image."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import pyautoattack
import torch
from torch import Tensor

from modules.attacks.kept_calls import KeptCalls

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
        self._guesses: list[Tensor] = []  # of all logits before the first attack
        self._attacked: list[Tensor] = []  # guesses after each call of an attack
        self._calls = 0
        self._kept: KeptCalls | None = None
        self._new: tuple[Tensor, Tensor] | None = None  # what the last call attacked, to be kept

    def run(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int | None = None,
        kept: KeptCalls | None = None,
    ) -> Outcome:
        """Attacks images, attack by attack, each in full batches of those that still stand.

        Args:
            images: `(B, 3, H, W)` in [0, 1].
            labels: their classes `(B,)`.
            batch_size: images of one call of an attack; None takes all.
            kept: calls that were made before, and takes the others.
        """
        self._guesses, self._attacked, self._calls = [], [], 0
        self._kept, self._new = kept, None
        size = min(batch_size or len(images), len(images))
        adversarial, predictions = self.run_standard_evaluation(images, labels, batch_size=size)
        return Outcome(adversarial, predictions, self._broken_by(labels, size))

    def get_logits(self, x: Tensor) -> Tensor:
        """Logits; the parent asks for those of clean images and of each attack's result."""
        logits = super().get_logits(x)
        guesses = logits.max(dim=1)[1]
        (self._attacked if self._calls else self._guesses).append(guesses)
        if self._new is not None and self._kept is not None:
            images, labels = self._new
            self._kept.keep(self._calls - 1, images, labels, x, guesses != labels)
        self._new = None
        return logits

    def _perturb(
        self, perturb: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor
    ) -> Tensor:
        self._calls += 1
        if self._kept is not None:
            found = self._kept.find(self._calls - 1, images, labels)
            if found is not None:
                return found
            self._new = images.clone(), labels
        return perturb(images, labels)

    def _broken_by(self, labels: Tensor, size: int) -> list[str]:
        # the parent's checks come first, so the last logits before an attack are the clean ones
        batches = -(-len(labels) // size)
        right = torch.cat(self._guesses[-batches:]) == labels
        broken = [STANDING if stands else WRONG_BEFORE for stands in right.tolist()]
        attacked: Iterator[Tensor] = iter(self._attacked)
        for name in self.attacks_to_run or []:
            standing = right.nonzero().flatten()
            for part in standing.split(size) if len(standing) else ():
                fooled = part[next(attacked) != labels[part]]
                right[fooled] = False
                for index in fooled.tolist():
                    broken[index] = name
        return broken
