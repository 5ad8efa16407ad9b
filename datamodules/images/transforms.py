"""Joint augmentation of an image and its part masks."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from datamodules.files.errors import UserError


class DetectionAugmentation:
    """Flip, scale jitter and mild colour changes of an image with its masks.

    The jitter resizes, then crops or pads at a random place, so that the image keeps its size;
    with `canvas` every image gets that size, which with a scale of (0.1, 2) is the large-scale
    jitter of Ghiasi et al. 2021. With scale (1, 1), photometric 0 and no canvas only the flip
    is left: the authors' flip + shortest edge, as the network does the resizing.

    Args:
        flip: probability of a horizontal flip.
        scale: lowest and highest factor of the scale jitter; (1, 1) turns it off.
        photometric: probability of a colour change.
        canvas: side of the square that every image becomes, in pixels: factor 1 of the jitter
            fits the image into it. None keeps the image's own size.

    Raises:
        UserError: if the scale range is empty or not positive, or the canvas is.
    """

    def __init__(
        self,
        flip: float = 0.5,
        scale: tuple[float, float] = (0.75, 1.25),
        photometric: float = 0.5,
        canvas: int | None = None,
    ) -> None:
        if not 0 < scale[0] <= scale[1]:
            raise UserError(f"scale {scale} must be (low, high) with 0 < low <= high")
        if canvas is not None and canvas < 1:
            raise UserError(f"canvas {canvas} must be a positive number of pixels")
        self.scale = scale
        self.canvas = canvas
        colour = v2.RandomPhotometricDistort(
            brightness=(0.9, 1.1), contrast=(0.8, 1.2), saturation=(0.8, 1.2), hue=(-0.02, 0.02)
        )
        self.flip_and_colour = v2.Compose(
            [v2.RandomApply([colour], photometric), v2.RandomHorizontalFlip(flip)]
        )

    def __call__(
        self, image: tv_tensors.Image, masks: tv_tensors.Mask, seed: Sequence[int]
    ) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        """Augments one image; the outcome depends on the arguments alone.

        Args:
            image: `(3, H, W)` uint8.
            masks: `(N, H, W)` uint8; N may be 0.
            seed: non-negative integers, such as seed, epoch and index.
        """
        words = np.random.SeedSequence(list(seed)).generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(words[0]))
            image, masks = self.flip_and_colour(image, masks)
            height, width = image.shape[-2:]
            if self.canvas is not None:
                height = width = self.canvas
            if self.scale[0] < self.scale[1] or self.canvas is not None:
                jitter = v2.ScaleJitter((height, width), self.scale)
                image, masks = _resized(image, masks, jitter.make_params([image])["size"])
                crop = v2.RandomCrop((height, width), pad_if_needed=True, fill={
                    tv_tensors.Image: 114, tv_tensors.Mask: 0
                })  # fmt: skip
                image, masks = crop(image, masks)
        return image, masks


def _resized(
    image: tv_tensors.Image, masks: tv_tensors.Mask, size: Sequence[int]
) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """Both about the centres of pixels; transforms of a `Mask` would sample it at their corners."""
    pixels = v2.functional.resize(
        masks.as_subclass(torch.Tensor), list(size), v2.InterpolationMode.NEAREST_EXACT
    )
    return v2.functional.resize(image, list(size)), tv_tensors.Mask(pixels)


def boxes_of(masks: Tensor) -> Tensor:
    """Tight boxes of binary masks.

    Args:
        masks: `(N, H, W)`, none of them empty; N may be 0.

    Returns:
        `(N, 4)` float as x1, y1, x2, y2 in pixels; x2 and y2 are one past the last pixel.
    """
    if len(masks) == 0:
        return torch.zeros(0, 4)
    columns, rows = masks.bool().any(dim=1).byte(), masks.bool().any(dim=2).byte()
    x1, y1 = columns.argmax(dim=1), rows.argmax(dim=1)
    x2 = columns.shape[1] - columns.flip(1).argmax(dim=1)
    y2 = rows.shape[1] - rows.flip(1).argmax(dim=1)
    return torch.stack([x1, y1, x2, y2], dim=1).float()
