"""Any attack of torchattacks, or written for it, as a threat."""

import importlib
import inspect
from typing import Any

import torch
import torchattacks
from torch import Tensor, nn

from datamodules.files.errors import UserError
from modules.attacks.balls import Norm
from modules.attacks.gradient_paths import GradientPath
from modules.attacks.pixel_units import PixelDistance
from modules.attacks.threats import PYAUTOATTACK_NORMS, Threat

SCORE_BASED = ("Square", "OnePixel", "Pixle", "SPSA")
ROUNDING = 1e-4  # relative, of distances in float32


class TorchAttack(Threat):
    """An attack by its class path, held to a norm ball.

    Attacks that look for a small perturbation (CW, DeepFool, ...) know no radius: an image whose
    perturbation turns out larger than `eps` counts as standing and comes back unchanged.

    Args:
        class_path: subclass of `torchattacks.attack.Attack`, such as `torchattacks.VMIFGSM`.
        norm: norm of the ball.
        eps: radius, in [0, 1] pixel units; handed to the attack where it has such an argument.
        init_args: further arguments of the attack; text such as `1/255` is a number.
        through: by which path gradients go, see `gradient_path`.

    Raises:
        UserError: if there is no such attack or it takes no such arguments.
    """

    moves_all = True

    def __init__(
        self,
        class_path: str,
        norm: Norm,
        eps: PixelDistance,
        init_args: dict[str, Any] | None = None,
        through: GradientPath = "auto",
    ) -> None:
        super().__init__(norm, eps, through)
        self.class_path = class_path
        self.init_args = {name: _number(value) for name, value in (init_args or {}).items()}
        if self.init_args.get("eps", self.eps) != self.eps:
            raise UserError(
                f"{class_path}: eps={self.init_args['eps']} and eps={self.eps}: give one"
            )
        known = inspect.signature(self._attack_class().__init__).parameters
        if "eps" in known:
            self.init_args["eps"] = self.eps
        if "norm" in known:  # torchattacks spells it as pyautoattack does
            self.init_args.setdefault("norm", PYAUTOATTACK_NORMS[norm])
        unknown = self.init_args.keys() - known.keys()
        if unknown and not any(p.kind is p.VAR_KEYWORD for p in known.values()):
            raise UserError(
                f"{class_path} takes no {', '.join(sorted(unknown))}; its arguments are "
                f"{', '.join(list(known)[2:])}"
            )
        self._seeded = "seed" in known and "seed" not in self.init_args
        self._classes = "n_classes" in known and "n_classes" not in self.init_args

    @property
    def black_box(self) -> bool:
        """Whether the attack is one of torchattacks' that use no gradients."""
        return self._attack_class().__name__ in SCORE_BASED

    @property
    def settings(self) -> dict[str, Any]:
        """Attack name and all its settings, as JSON-able values."""
        shown = {name: v for name, v in super().settings.items() if not name.startswith("_")}
        return shown | {"attack": self._attack_class().__name__}

    def perturb(self, network: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Runs the attack on all images and drops what left the ball."""
        arguments = dict(self.init_args)
        if self._seeded:
            arguments["seed"] = seed
        if self._classes:
            with torch.no_grad():
                arguments["n_classes"] = network(images[:1]).shape[1]
        attack = self._attack_class()(network, **arguments)
        attack.set_device(images.device)
        adversarial = attack(images, labels).detach()
        order = {"linf": torch.inf, "l2": 2, "l1": 1}[str(self.norm)]
        distance = torch.linalg.vector_norm((adversarial - images).flatten(1), order, dim=1)
        inside = (distance <= self.eps * (1 + ROUNDING)).view(-1, 1, 1, 1)
        return torch.where(inside, adversarial, images)

    def _attack_class(self) -> type[Any]:
        module, _, name = self.class_path.rpartition(".")
        try:
            found = getattr(importlib.import_module(module or "torchattacks"), name)
        except (ImportError, AttributeError) as error:
            raise UserError(f"there is no attack {self.class_path} ({error})") from None
        if not (isinstance(found, type) and issubclass(found, torchattacks.attack.Attack)):
            raise UserError(f"{self.class_path} is no subclass of torchattacks.attack.Attack")
        return found


def _number(value: Any) -> Any:
    fraction = isinstance(value, str) and "/" in value
    return float(PixelDistance(value)) if fraction else value
