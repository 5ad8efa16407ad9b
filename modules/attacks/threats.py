"""Threat models of the evaluation, one class each, on torchattacks and pyautoattack."""

from abc import ABC, abstractmethod
from typing import Any, Literal

import pyautoattack
import torch
import torchattacks
from torch import Tensor, nn

Norm = Literal["linf", "l2", "l1"]
PYAUTOATTACK_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
# The targeted DLR loss divides by a difference that involves the fourth largest logit.
DLR_MIN_CLASSES = 4


class Threat(ABC):
    """What an adversary may do: a norm ball around the image, and how it is searched.

    Attributes:
        norm: norm of the perturbation, None for none.
        eps: radius of the ball in that norm, in [0, 1] pixel units; 0 for none.
    """

    def __init__(self, norm: Norm | None, eps: float) -> None:
        if eps < 0 or (norm is not None and norm not in PYAUTOATTACK_NORMS):
            raise ValueError(
                f"norm={norm}, eps={eps}: the norm must be one of "
                f"{', '.join(PYAUTOATTACK_NORMS)} and eps not negative"
            )
        self.norm = norm
        self.eps = eps

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Adversarial images `(B, 3, H, W)` in [0, 1], inside the ball.

        The result depends on the arguments alone: the attack draws from its own generator
        state, and the global one is put back afterwards.

        Args:
            network: classifier of pixels in [0, 1], in eval mode.
            images: clean images `(B, 3, H, W)` in [0, 1].
            labels: true classes `(B,)`.
            seed: seed of the attack.
        """
        devices = [images.device] if images.device.type == "cuda" else []
        # the attacks reshape with view(), so channels-last images will not do
        images = images.contiguous()
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.random.fork_rng(devices=devices),
        ):
            torch.manual_seed(seed)
            return self.perturb(network, images, labels, seed).detach()

    @abstractmethod
    def perturb(self, network: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Runs the attack; gradients are on and the generator is seeded."""

    @property
    def settings(self) -> dict[str, Any]:
        """Attack name and all its settings, as JSON-able values."""
        return {"attack": type(self).__name__, **vars(self)}


class Clean(Threat):
    """No perturbation; its accuracy is the clean accuracy."""

    def __init__(self) -> None:
        super().__init__(None, 0.0)

    def perturb(self, network: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Returns the images."""
        return images


class PGD(Threat):
    """Projected gradient ascent on the cross-entropy from a random start (torchattacks).

    Args:
        eps: radius, in [0, 1] pixel units, such as 4/255.
        steps: number of steps.
        step_size: step size, in [0, 1] pixel units.
        norm: `linf` or `l2`.
    """

    def __init__(
        self, eps: float, steps: int, step_size: float, norm: Literal["linf", "l2"] = "linf"
    ) -> None:
        super().__init__(norm, eps)
        self.steps = steps
        self.step_size = step_size

    def perturb(self, network: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Runs all steps on all images."""
        attack_class = torchattacks.PGD if self.norm == "linf" else torchattacks.PGDL2
        attack = attack_class(network, eps=self.eps, alpha=self.step_size, steps=self.steps)
        return attack(images, labels)


class APGD(Threat):
    """Auto-PGD on the cross-entropy, one restart (Croce and Hein 2020, §3-4; pyautoattack).

    Images that are wrong without an attack, or right in spite of it, come back unchanged.

    Args:
        eps: radius, in [0, 1] pixel units.
        norm: norm of the perturbation.
        steps: number of steps.
    """

    def __init__(self, eps: float, norm: Norm = "linf", steps: int = 100) -> None:
        super().__init__(norm, eps)
        self.steps = steps

    def perturb(self, network: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Attacks the images that the network gets right."""
        attack = pyautoattack.autoattack.APGDAttack(
            network,
            n_iter=self.steps,
            n_restarts=1,
            norm=PYAUTOATTACK_NORMS[str(self.norm)],
            eps=self.eps,
            seed=seed,
            use_largereps=self.norm == "l1",
            device=images.device,
        )
        return attack.perturb(images, labels)


class AutoAttack(Threat):
    """AutoAttack (Croce and Hein 2020; pyautoattack).

    The attacks run one after the other, each only on images that stood all before it. With fewer
    than 10 classes the targeted attacks take all other classes; with fewer than 4 the targeted
    DLR loss does not exist and its attack is left out.

    Args:
        eps: radius, in [0, 1] pixel units.
        norm: norm of the perturbation.
        version: `standard`, `plus` or `rand` (for randomised networks).
    """

    def __init__(
        self,
        eps: float,
        norm: Norm = "linf",
        version: Literal["standard", "plus", "rand"] = "standard",
    ) -> None:
        super().__init__(norm, eps)
        self.version = version

    def perturb(self, network: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Attacks the images that the network gets right, as one batch."""
        with torch.no_grad():
            num_classes = network(images[:1]).shape[1]
        attack = pyautoattack.AutoAttack(
            network,
            norm=PYAUTOATTACK_NORMS[str(self.norm)],  # type: ignore[arg-type]
            eps=self.eps,
            seed=seed,
            version=self.version,
            device=images.device,
        )
        for targeted in (attack.apgd_targeted, attack.fab):
            targeted.n_target_classes = min(targeted.n_target_classes, num_classes - 1)
        if num_classes < DLR_MIN_CLASSES and attack.attacks_to_run is not None:
            attack.attacks_to_run.remove("apgd-t")
        adversarial, _ = attack.run_standard_evaluation(images, labels, batch_size=len(images))
        return adversarial
