"""Projected gradient descent for adversarial training."""

from collections.abc import Callable

import torch
from torch import Tensor

from datamodules.files.errors import UserError
from modules.attacks.balls import Noise, Norm, project, random_start, steepest


class PGD:
    """PGD with a random start (Madry et al. 2018; PartImageNet++ §4.2).

    Only the gradient with respect to the images is computed: no parameter gradients and, as the
    network is called bare, no exchange between processes.

    Args:
        eps: radius in pixel units, images in [0, 1].
        steps: number of gradient steps t.
        step_size: length of a step in pixel units, `2 * eps / steps` when not given.
        norm: ball and steps.
        restarts: random starts; of more than one, each image's best result is kept.
        keep_best: of all iterates keep each image's best, at the cost of one more forward pass
            per start. The authors' code does so too, but chooses for the batch as a whole.

    Raises:
        UserError: if eps is negative or steps or restarts are not positive.
    """

    def __init__(
        self,
        eps: float = 4 / 255,
        steps: int = 2,
        step_size: float | None = None,
        norm: Norm = "linf",
        restarts: int = 1,
        keep_best: bool = False,
    ) -> None:
        if eps < 0 or steps < 1 or restarts < 1:
            raise UserError(
                f"PGD needs eps >= 0, steps >= 1 and restarts >= 1, got {eps=}, {steps=}, "
                f"{restarts=}"
            )
        self.eps = float(eps)
        self.steps = steps
        self.step_size = 2 * eps / steps if step_size is None else step_size
        self.norm: Norm = norm
        self.restarts = restarts
        self.keep_best = keep_best

    def __call__(
        self,
        images: Tensor,
        loss: Callable[[Tensor], Tensor],
        generator: Noise = None,
        eps_factor: float = 1.0,
        step_factor: float = 1.0,
    ) -> Tensor:
        """Adversarial images.

        Args:
            images: `(B, 3, H, W)` float in [0, 1].
            loss: what the attack maximises: `(B,)` of adversarial images, one value an image.
            generator: source of the random start, on the images' device, or one for each image.
            eps_factor: scales radius and step, for a warm-up.
            step_factor: scales the step, for a warm-up.

        Returns:
            `(B, 3, H, W)` in [0, 1], within `eps` of `images`; detached.
        """
        images = images.detach()
        eps = self.eps * eps_factor
        step_size = self.step_size * eps_factor * step_factor
        if self.restarts == 1 and not self.keep_best:
            return self._ascend(images, loss, generator, eps, step_size)[-1][0]
        best, highest = images, images.new_full((len(images),), -torch.inf)
        for _ in range(self.restarts):
            iterates = self._ascend(images, loss, generator, eps, step_size)
            last = iterates[-1][0]
            with torch.no_grad():
                iterates[-1] = (last, loss(last))
            for point, value in iterates if self.keep_best else iterates[-1:]:
                assert value is not None
                higher = value > highest
                best = torch.where(higher.view(-1, 1, 1, 1), point, best)
                highest = torch.where(higher, value.to(highest.dtype), highest)
        return best

    def _ascend(
        self,
        images: Tensor,
        loss: Callable[[Tensor], Tensor],
        generator: Noise,
        eps: float,
        step_size: float,
    ) -> list[tuple[Tensor, Tensor | None]]:
        """The iterates with their losses; that of the last is not computed."""
        point = random_start(images, eps, self.norm, generator)
        iterates: list[tuple[Tensor, Tensor | None]] = []
        for _ in range(self.steps):
            with torch.enable_grad():
                point.requires_grad_()
                value = loss(point)
                (gradient,) = torch.autograd.grad(value.sum(), point)
            point = point.detach()
            if self.keep_best:
                iterates.append((point, value.detach()))
            moved = point + step_size * steepest(gradient, self.norm)
            point = project(moved, images, eps, self.norm)
        return [*iterates, (point, None)]
