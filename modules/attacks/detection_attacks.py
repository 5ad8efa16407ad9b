"""Attacks on an object detector through its training losses."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from datamodules.files.errors import UserError
from modules.attacks.balls import project, random_start
from modules.attacks.pixel_units import PixelDistance

# Losses of torchvision's two-stage detectors: of the box head and of the proposal network.
LOSSES = {
    "classification": ("loss_classifier", "loss_objectness"),
    "regression": ("loss_box_reg", "loss_rpn_box_reg"),
}


def ascend(
    points: Sequence[Tensor], images: Sequence[Tensor], eps: float, step_size: float
) -> list[Tensor]:
    """One signed step along the gradients that a backward pass left on the points.

    Args:
        points: adversarial images `(3, H, W)`, leaves with a gradient.
        images: clean images of the same sizes in [0, 1].
        eps: radius of the l_inf ball in pixel units.
        step_size: length of the step in pixel units.

    Returns:
        Detached points in the ball around the images and in [0, 1].
    """
    moved = []
    for point, image in zip(points, images, strict=True):
        assert point.grad is not None
        moved.append(project(point.detach() + step_size * point.grad.sign(), image, eps, "linf"))
    return moved


@contextmanager
def giving_losses(detector: Any) -> Iterator[None]:
    """Has a detector of torchvision give losses while its layers stay in the mode they are in.

    Batch norms and dropout of a detector in eval mode stay as at inference.
    """
    switched = [detector, detector.rpn, detector.roi_heads]
    modes = [module.training for module in switched]
    try:
        for module in switched:
            module.training = True
        yield
    finally:
        for module, mode in zip(switched, modes, strict=True):
            module.training = mode


class DetectionPGD:
    """PGD that maximises losses of a detector (A_cls and A_reg of Li et al. 2023).

    The defaults are those of their published code: the loss of the box head alone, from the image.

    Args:
        losses: the `classification` or the `regression` losses.
        eps: radius of the l_inf ball in pixel units, images in [0, 1].
        steps: number of steps.
        step_size: length of a step in pixel units.
        proposals: maximise the loss of the proposal network, too.
        random_start: begin at a random point of the ball.

    Raises:
        UserError: if a number is out of range or there are no such losses.
    """

    def __init__(
        self,
        losses: Literal["classification", "regression"],
        eps: PixelDistance = PixelDistance("4/255"),
        steps: int = 10,
        step_size: PixelDistance = PixelDistance("1/255"),
        proposals: bool = False,
        random_start: bool = False,
    ) -> None:
        if eps < 0 or steps < 1 or step_size < 0:
            raise UserError(
                f"DetectionPGD needs eps >= 0, steps >= 1 and step_size >= 0, got {eps=}, "
                f"{steps=}, {step_size=}"
            )
        if losses not in LOSSES:
            raise UserError(f"losses '{losses}' is none of {[*LOSSES]}")
        self.losses = LOSSES[losses] if proposals else LOSSES[losses][:1]
        self.eps = float(eps)
        self.steps = steps
        self.step_size = float(step_size)
        self.random_start = random_start

    def loss(self, losses: Mapping[str, Tensor]) -> Tensor:
        """What the attack maximises of the detector's losses, a scalar."""
        return torch.stack([losses[name] for name in self.losses]).sum()

    def __call__(
        self, detector: Any, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]]
    ) -> list[Tensor]:
        """Adversarial images.

        Args:
            detector: detector of torchvision that takes images in [0, 1]; no gradient is left on
                its parameters.
            images: `(3, H, W)` in [0, 1], sizes may differ.
            targets: `boxes (N, 4)` as x1, y1, x2, y2 in pixels and `labels (N,)`; N may be 0.

        Returns:
            `(3, H, W)` in [0, 1], within `eps` of `images`; detached.
        """
        images = [image.detach() for image in images]
        points = images
        if self.random_start:
            points = [random_start(image, self.eps, "linf", None) for image in images]
        with torch.enable_grad(), giving_losses(detector):
            for _ in range(self.steps):
                points = [point.clone().requires_grad_() for point in points]
                loss = self.loss(detector(points, list(targets)))
                gradients = torch.autograd.grad(loss, points)
                for point, gradient in zip(points, gradients, strict=True):
                    point.grad = gradient
                points = ascend(points, images, self.eps, self.step_size)
        return points
