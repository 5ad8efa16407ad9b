"""Masks between image and region, about the centres of pixels.

torchvision's own functions take pixel i for the point i instead of i + 1/2, and round boxes to
whole pixels: masks come out up to half a pixel beside their object, and those of small parts a
quarter too large. detectron2, which the paper trained with, computes them as here.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import roi_align

MASKS_AT_ONCE = 64  # pasted together, before they are rounded to a byte a pixel


class CentredTransform(GeneralizedRCNNTransform):
    """torchvision's resizing of images and targets, with masks about the centres of pixels."""

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Resizes an image `(3, H, W)` with its boxes and masks `(N, H, W)`."""
        masks = None if target is None else target.pop("masks", None)
        resized, target = super().resize(image, target)
        if target is not None and masks is not None:
            size: Any = resized.shape[-2:]
            target["masks"] = F.interpolate(masks[:, None], size, mode="nearest-exact")[:, 0]
        return resized, target


def mask_targets(masks: Tensor, boxes: Tensor, indices: Tensor, side: int) -> Tensor:
    """The share of each cell of a box's grid that its mask covers.

    Args:
        masks: `(N, H, W)` in {0, 1}.
        boxes: `(R, 4)` as x1, y1, x2, y2 in pixels.
        indices: int64 `(R,)`, the mask of each box.
        side: S, cells of the grid to a side.

    Returns:
        `(R, S, S)` in [0, 1], of the boxes' type.
    """
    regions = torch.cat([indices[:, None].to(boxes), boxes], 1)
    return roi_align(masks[:, None].to(boxes), regions, side, aligned=True)[:, 0]


def paste_masks(probabilities: Tensor, boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Where masks on the grids of boxes are at least 1/2 in the image, interpolated bilinearly.

    Args:
        probabilities: `(N, S, S)` in [0, 1]; they fall to 0 half a cell beyond the box.
        boxes: `(N, 4)` as x1, y1, x2, y2 in pixels.
        size: (H, W) of the image.

    Returns:
        bool `(N, H, W)`.
    """
    height, width = size
    side = probabilities.shape[-1]
    pasted = [probabilities.new_zeros(0, height, width, dtype=torch.bool)]
    for some, box in zip(
        probabilities.split(MASKS_AT_ONCE), boxes.split(MASKS_AT_ONCE), strict=True
    ):
        rows = _weights(box[:, 1], box[:, 3], height, side)
        columns = _weights(box[:, 0], box[:, 2], width, side)
        with torch.autocast(box.device.type, enabled=False):
            pasted.append(rows @ some.float() @ columns.mT >= 0.5)
    return torch.cat(pasted)


def _weights(low: Tensor, high: Tensor, pixels: int, side: int) -> Tensor:
    """Weights `(N, pixels, side)` of the cells between two ends for the centre of each pixel."""
    centres = torch.arange(pixels, device=low.device) + 0.5
    cell = (high - low).clamp(min=1e-6)[:, None] / side
    places = (centres - low[:, None]) / cell - 0.5
    cells = torch.arange(side, device=low.device)
    return (1 - (places[..., None] - cells).abs()).clamp(min=0)
