"""Threat models of the evaluation, one class each, on torchattacks and pyautoattack."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import pyautoattack
import torch
import torchattacks
from torch import Tensor, nn

from datamodules.files.errors import UserError
from modules.attacks.balls import Norm
from modules.attacks.gradient_paths import GradientPath, gradient_path, mode_kept
from modules.attacks.kept_calls import KeptCalls
from modules.attacks.pixel_units import PixelDistance
from modules.attacks.traced_autoattack import Outcome, TracedAutoAttack

PYAUTOATTACK_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
AttackName = Literal["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]


class Threat(ABC):
    """What an adversary may do: a norm ball around the image, and how it is searched.

    Attributes:
        norm: norm of the perturbation, None for none.
        eps: radius of the ball in that norm, in [0, 1] pixel units; 0 for none.
        through: by which path gradients go through the network, see `gradient_path`.
        needs_parts: whether it attacks a network that has `forward_with_parts`.
        moves_all: whether images that stand in spite of the attack come back changed.
    """

    needs_parts: ClassVar[bool] = False
    moves_all: ClassVar[bool] = False

    def __init__(
        self, norm: Norm | None, eps: PixelDistance, through: GradientPath = "auto"
    ) -> None:
        if norm is not None and norm not in PYAUTOATTACK_NORMS:
            raise UserError(f"norm={norm} must be one of {', '.join(PYAUTOATTACK_NORMS)}")
        self.norm = norm
        self.eps = float(PixelDistance(eps))  # floats and text reach here, too
        self.through = through

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """The images of `outcome`."""
        return self.outcome(network, images, labels, seed).images

    def outcome(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        seed: int,
        kept: Path | None = None,
    ) -> Outcome:
        """Adversarial images inside the ball, and what the attack says of them.

        The result depends on the arguments alone: the attack draws from its own generator
        state, and the global one is put back afterwards.

        Args:
            network: classifier of pixels in [0, 1], in eval mode.
            images: clean images `(B, 3, H, W)` in [0, 1].
            labels: true classes `(B,)`.
            seed: seed of the attack.
            kept: folder where an attack of many calls keeps what they found, to go on with.

        Raises:
            UserError: if the network has no such gradient path or is left in another mode.
        """
        devices = [images.device] if images.device.type == "cuda" else []
        # the attacks reshape with view(), so channels-last images will not do
        images = images.contiguous()
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.random.fork_rng(devices=devices),
            mode_kept(network, str(self.settings["attack"])),
            gradient_path(network, self.through) as attacked,
        ):
            torch.manual_seed(seed)
            found = self.search(attacked, images, labels, seed, kept)
            return found._replace(images=found.images.detach())

    def search(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        seed: int,
        kept: Path | None = None,
    ) -> Outcome:
        """Runs the attack; gradients are on and the generator is seeded."""
        return Outcome(self.perturb(network, images, labels, seed))

    @abstractmethod
    def perturb(self, network: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Adversarial images; gradients are on and the generator is seeded."""

    @property
    def black_box(self) -> bool:
        """Whether the attack uses no gradients."""
        return False

    @property
    def settings(self) -> dict[str, Any]:
        """Attack name and all its settings, as JSON-able values."""
        return {"attack": type(self).__name__, **vars(self)}


class Clean(Threat):
    """No perturbation; its accuracy is the clean accuracy."""

    def __init__(self) -> None:
        super().__init__(None, PixelDistance(0))

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
        through: by which path gradients go, see `gradient_path`.
    """

    moves_all = True

    def __init__(
        self,
        eps: PixelDistance,
        steps: int,
        step_size: PixelDistance,
        norm: Literal["linf", "l2"] = "linf",
        through: GradientPath = "auto",
    ) -> None:
        super().__init__(norm, eps, through)
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
        through: by which path gradients go, see `gradient_path`.
    """

    def __init__(
        self,
        eps: PixelDistance,
        norm: Norm = "linf",
        steps: int = 100,
        through: GradientPath = "auto",
    ) -> None:
        super().__init__(norm, eps, through)
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

    The attacks run one after the other, each in batches of the images that stood all before it:
    the more images a unit has, the fewer of these batches are not full. With fewer than 10 classes
    the targeted attacks take all other classes; with fewer than 4 the targeted DLR loss does not
    exist and its attack is left out, with 2 the untargeted one is as well.

    Args:
        eps: radius, in [0, 1] pixel units.
        norm: norm of the perturbation.
        version: `standard`, `plus`, `rand` (for randomised networks) or `custom`.
        attacks: for `custom`, the attacks in their order, with the settings of `standard`.
        through: by which path gradients go, see `gradient_path`.
        batch_size: images of one call of an attack; None takes the whole unit.

    Raises:
        UserError: if `attacks` are unknown, or given or missing against the version, or the batch
            size is not positive.
    """

    def __init__(
        self,
        eps: PixelDistance,
        norm: Norm = "linf",
        version: Literal["standard", "plus", "rand", "custom"] = "standard",
        attacks: Sequence[AttackName] = (),
        through: GradientPath = "auto",
        batch_size: int | None = None,
    ) -> None:
        super().__init__(norm, eps, through)
        if batch_size is not None and batch_size < 1:
            raise UserError(f"batch_size={batch_size} must be 1 or more")
        unknown = [name for name in attacks if name not in get_args(AttackName)]
        if unknown or bool(attacks) != (version == "custom"):
            raise UserError(
                f"version={version}, attacks={list(attacks)}: `custom` needs a list of "
                f"{', '.join(get_args(AttackName))}, the other versions none"
            )
        self.version = version
        self.attacks = list(attacks)
        self.batch_size = batch_size

    @property
    def black_box(self) -> bool:
        """Whether Square runs alone."""
        return self.attacks == ["square"]

    @property
    def settings(self) -> dict[str, Any]:
        """As of every threat; without the batch size where a unit is one batch."""
        known = super().settings
        return {k: v for k, v in known.items() if k != "batch_size" or v is not None}

    def search(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        seed: int,
        kept: Path | None = None,
    ) -> Outcome:
        """Attacks the images that the network gets right."""
        with torch.no_grad():
            num_classes = network(images[:1]).shape[1]
        attack = TracedAutoAttack(
            network,
            num_classes,
            attacks=self.attacks,
            norm=PYAUTOATTACK_NORMS[str(self.norm)],
            eps=self.eps,
            seed=seed,
            version=self.version,
            device=images.device,
        )
        calls = None if kept is None else KeptCalls(kept)
        return attack.run(images, labels, self.batch_size, calls)

    def perturb(self, network: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """The images of `search`."""
        return self.search(network, images, labels, seed).images


class Square(AutoAttack):
    """Square attack alone (Andriushchenko et al. 2020): scores only, as in AutoAttack `standard`.

    Where it leaves fewer images standing than attacks by gradient, their gradients are masked.

    Args:
        eps: radius, in [0, 1] pixel units.
        norm: norm of the perturbation.
    """

    def __init__(self, eps: PixelDistance, norm: Norm = "linf") -> None:
        super().__init__(eps, norm, "custom", ["square"])
