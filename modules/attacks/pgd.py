"""Projected gradient descent for adversarial training."""

from collections.abc import Callable

import torch
from torch import Tensor


class PGD:
    """PGD under l_inf with a uniform random start (Madry et al. 2018; PartImageNet++ §4.2).

    Only the gradient with respect to the images is computed: no parameter gradients and, as the
    network is called bare, no exchange between processes.

    Args:
        eps: radius in pixel units, images in [0, 1].
        steps: number of gradient steps t.
        step_size: length of a step in pixel units, `2 * eps / steps` when not given.

    Raises:
        ValueError: if eps is negative or steps is not positive.
    """

    def __init__(
        self, eps: float = 4 / 255, steps: int = 2, step_size: float | None = None
    ) -> None:
        if eps < 0 or steps < 1:
            raise ValueError(f"PGD needs eps >= 0 and steps >= 1, got eps={eps}, steps={steps}")
        self.eps = eps
        self.steps = steps
        self.step_size = 2 * eps / steps if step_size is None else step_size

    def __call__(
        self,
        images: Tensor,
        loss: Callable[[Tensor], Tensor],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Adversarial images.

        Args:
            images: `(B, 3, H, W)` float in [0, 1].
            loss: the scalar that the attack raises, of adversarial images.
            generator: source of the random start, on the images' device.

        Returns:
            `(B, 3, H, W)` in [0, 1], within `eps` of `images` in l_inf; detached.
        """
        images = images.detach()
        noise = torch.rand(images.shape, generator=generator, device=images.device)
        adversarial = (images + (2 * noise - 1) * self.eps).clamp_(0, 1)
        with torch.enable_grad():
            for _ in range(self.steps):
                adversarial.requires_grad_()
                (gradient,) = torch.autograd.grad(loss(adversarial), adversarial)
                step = adversarial.detach() + self.step_size * gradient.sign()
                adversarial = step.clamp_(images - self.eps, images + self.eps).clamp_(0, 1)
        return adversarial.detach()
