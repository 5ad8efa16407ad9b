"""Augmentation that workers draw and the device computes, batch by batch.

A worker adds to its sample `colour`, float32 `(3,)`, the factors of brightness, contrast and
saturation, and `erase`, int64 `(4,)`, the rectangle that is erased. The outcome depends on these
alone: the device draws nothing, so that a resumed training sees the same images.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

GREY = (0.2989, 0.587, 0.114)  # of torchvision's rgb_to_grayscale
MEAN = (0.485, 0.456, 0.406)  # of ImageNet


def augment(batch: dict[str, Any]) -> dict[str, Any]:
    """Applies what the workers drew: colours first, then erasing.

    Args:
        batch: with `image`, uint8 `(B, 3, H, W)`, and where they were drawn `colour`, `(B, 3)`,
            and `erase`, `(B, 4)`; it is not changed.

    Returns:
        The batch without `colour` and `erase`. Where it had either, `image` is float in [0, 1],
        channels last; other batches are handed through.
    """
    if "colour" not in batch and "erase" not in batch:
        return batch
    rest = {key: value for key, value in batch.items() if key not in ("colour", "erase")}
    images = batch["image"].to(memory_format=torch.channels_last)
    if "colour" in batch:
        images = jitter_colours(images, batch["colour"])
    else:
        images = images.float().div_(255)
    if "erase" in batch:
        images = erase(images, batch["erase"])
    return rest | {"image": images}


def jitter_colours(images: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast and saturation, in this order, as torchvision's v2 transforms do.

    Args:
        images: uint8 `(B, 3, H, W)`.
        factors: float32 `(B, 3)`, at least 0; 1 changes nothing.

    Returns:
        float32 `(B, 3, H, W)` in [0, 1], of the same memory format.
    """
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)
    images = images.mul(brightness / 255).clamp_(max=1)
    mean = _grey(images.mean((2, 3), keepdim=True))
    images.lerp_(mean, 1 - contrast).clamp_(0, 1)
    return images.lerp_(_grey(images), 1 - saturation).clamp_(0, 1)


def _grey(images: Tensor) -> Tensor:
    red, green, blue = (images[:, i : i + 1] for i in range(3))
    return (red * GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])


def erase(images: Tensor, boxes: Tensor) -> Tensor:
    """Fills one rectangle an image with ImageNet's mean colour, 0 after normalisation.

    Args:
        images: float `(B, 3, H, W)` in [0, 1].
        boxes: int64 `(B, 4)`, top, left, bottom and right, the last two exclusive; where they
            enclose nothing, nothing is erased.
    """
    top, left, bottom, right = boxes[:, :, None].unbind(1)
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    inside = ((rows >= top) & (rows < bottom))[:, None, :, None]
    inside = inside & ((columns >= left) & (columns < right))[:, None, None, :]
    mean = torch.tensor(MEAN, device=images.device, dtype=images.dtype).view(3, 1, 1)
    return torch.where(inside, mean, images)


def erased_box(rng: np.random.Generator, probability: float, size: int) -> Tensor:
    """A rectangle of random erasing (Zhong et al. 2017), with timm's area and aspect ratio.

    Args:
        rng: source of randomness.
        probability: of erasing anything.
        size: side of the image in pixels.

    Returns:
        int64 `(4,)`, top, left, bottom and right; all 0 for nothing, also if ten tries do not
        fit.
    """
    if rng.random() < probability:
        for _ in range(10):
            area = size * size * rng.uniform(0.02, 1 / 3)
            aspect = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < height < size and 0 < width < size:
                top, left = rng.integers(0, [size - height + 1, size - width + 1]).tolist()
                return torch.tensor([top, left, top + height, left + width])
    return torch.zeros(4, dtype=torch.int64)
