"""Attacks that know of the parts: they push through the part branch, too."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datamodules.files.errors import UserError
from modules.attacks.balls import Norm, project, random_start, steepest
from modules.attacks.pixel_units import PixelDistance
from modules.attacks.threats import Threat
from modules.losses.part_level import PartLevel


class PartPGD(Threat):
    """PGD on the classes and on the part maps (after Sitawarin et al. 2023, §4.3).

    The loss is `class_weight * CE + part_weight * L_parts`; L_parts is the cross-entropy of the
    part logits with the part map that the network gives the clean image, mean over cells and
    levels. For MPM the parts are those of the bypass, for two-stage and judgment networks the
    maps that everything after them sees; `class_weight: 0` attacks the part maps alone. Class
    logits are those of `forward_with_parts`, which gradients pass. Of the iterates an image keeps
    the last one that the true `forward` gets wrong, or the very last.

    Args:
        eps: radius, in [0, 1] pixel units.
        steps: number of steps.
        step_size: step size, in [0, 1] pixel units.
        norm: norm of the perturbation.
        class_weight: of the cross-entropy of the classes.
        part_weight: of the loss of the parts.

    Raises:
        UserError: if steps are not positive or both weights are zero.
    """

    needs_parts = True
    moves_all = True

    def __init__(
        self,
        eps: PixelDistance,
        steps: int,
        step_size: PixelDistance,
        norm: Norm = "linf",
        class_weight: float = 1.0,
        part_weight: float = 1.0,
    ) -> None:
        super().__init__(norm, eps, "forward")
        if steps < 1 or class_weight == part_weight == 0:
            raise UserError(
                f"PartPGD needs a step and a weight, not {steps=}, {class_weight=}, {part_weight=}"
            )
        self.steps = steps
        self.step_size = float(PixelDistance(step_size))
        self.class_weight = class_weight
        self.part_weight = part_weight

    def perturb(self, network: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Runs all steps on all images.

        Args:
            network: a `PartNetwork`.
            images: clean images `(B, 3, H, W)` in [0, 1].
            labels: true classes `(B,)`.
            seed: unused, the generator is seeded.

        Raises:
            UserError: if the network predicts no parts.
        """
        assert self.norm is not None
        norm: Norm = self.norm
        with torch.no_grad():
            maps = [level.logits().argmax(1) for level in _levels(network, images)[1]]
        if not maps:
            raise UserError(f"{type(network).__name__} predicts no parts: use PGD")
        points = random_start(images, self.eps, norm, None)
        kept = points
        stands = torch.ones_like(labels, dtype=torch.bool)
        for _ in range(self.steps):
            points = points.detach().requires_grad_()
            logits, levels = _levels(network, points)
            loss = self.class_weight * F.cross_entropy(logits, labels, reduction="sum")
            for level, parts in zip(levels, maps, strict=True):
                cells = F.cross_entropy(level.logits(), parts, reduction="none").mean((1, 2))
                loss = loss + self.part_weight / len(levels) * cells.sum()
            (gradient,) = torch.autograd.grad(loss, points)
            points = points.detach() + self.step_size * steepest(gradient, norm)
            points = project(points, images, self.eps, norm)
            with torch.no_grad():
                wrong = network(points).argmax(1) != labels
            kept = torch.where((wrong | stands).view(-1, 1, 1, 1), points, kept)
            stands = stands & ~wrong
        return kept


def _levels(network: nn.Module, images: Tensor) -> tuple[Tensor, list[PartLevel]]:
    return network.forward_with_parts(images)  # type: ignore[operator, no-any-return]
