"""Steps, random starts and projections of the l_inf, l_2 and l_1 balls, images in [0, 1]."""

from collections.abc import Sequence
from typing import Literal

import torch
from pyautoattack.autopgd_base import L1_projection
from torch import Tensor

Norm = Literal["linf", "l2", "l1"]
L1_SHARE = 0.01  # of the coordinates that an l_1 step moves (Tramèr & Boneh 2019, SLIDE)


Noise = torch.Generator | Sequence[torch.Generator] | None


def random_start(images: Tensor, eps: float, norm: Norm, generator: Noise) -> Tensor:
    """A random point of the ball: uniform for l_inf, on the sphere for l_2 and l_1.

    Args:
        images: centres `(B, 3, H, W)` in [0, 1].
        eps: radius in pixel units.
        norm: the ball.
        generator: source of randomness on the images' device, or one for each image.
    """
    if isinstance(generator, Sequence):
        one = images.shape[1:]
        noise = torch.stack([torch.rand(one, generator=g, device=images.device) for g in generator])
    else:
        noise = torch.rand(images.shape, generator=generator, device=images.device)
    noise = 2 * noise - 1
    if norm == "linf":
        return (images + noise * eps).clamp_(0, 1)
    if norm == "l2":  # normal directions are uniform on the sphere
        noise = torch.erfinv(noise.clamp_(-1 + 1e-6, 1 - 1e-6))
        length = noise.flatten(1).norm(dim=1)
    else:  # Laplacian ones are on the l_1 sphere
        noise = -noise.sign() * torch.log1p(-noise.abs().clamp_(max=1 - 1e-6))
        length = noise.flatten(1).abs().sum(1)
    return project(images + noise * (eps / length).view(-1, 1, 1, 1), images, eps, norm)


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """The direction of unit norm that raises a loss most, `(B, 3, H, W)`.

    Under l_1 the largest hundredth of the coordinates moves, not one alone.

    Args:
        gradient: of the loss with respect to the images.
        norm: of the step.
    """
    if norm == "linf":
        return gradient.sign()
    flat = gradient.flatten(1)
    if norm == "l2":
        flat = flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-12)
        return flat.view_as(gradient)
    count = max(1, round(L1_SHARE * flat.shape[1]))
    top = flat.abs().topk(count, dim=1).indices
    step = torch.zeros_like(flat).scatter_(1, top, flat.gather(1, top).sign() / count)
    return step.view_as(gradient)


def project(points: Tensor, images: Tensor, eps: float, norm: Norm) -> Tensor:
    """Brings points back into the ball around the images and into [0, 1].

    Args:
        points: `(B, 3, H, W)`.
        images: centres `(B, 3, H, W)` in [0, 1].
        eps: radius in pixel units.
        norm: the ball.
    """
    if norm == "linf":
        return points.clamp(images - eps, images + eps).clamp_(0, 1)
    delta = points - images
    if norm == "l2":
        length = delta.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        # clipping moves towards the image in every coordinate, so it stays in the ball
        return (images + delta * (eps / length).clamp(max=1)).clamp_(0, 1)
    # pyautoattack reshapes with view(), so channels-last images will not do
    inside = L1_projection(images.contiguous(), delta.contiguous(), eps)
    return (points + inside).clamp_(0, 1)
