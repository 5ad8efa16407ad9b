"""Random images of 64 x 80 pixels and rectangular parts in them: six classes and background."""

import torch
from torch import Tensor

ALLOWED = torch.tensor(
    [
        [True, True, False, True, False, False, False],
        [True, False, False, False, True, True, True],
    ]
)
"""Classes that the category filter leaves to each of two images."""


def target(*boxes: tuple[int, int, int, int]) -> dict[str, Tensor]:
    """A part of another class, from 1 on, in each box `(x1, y1, x2, y2)`."""
    masks = torch.zeros(len(boxes), 64, 80, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = 1
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        "labels": torch.arange(1, len(boxes) + 1),
        "masks": masks,
    }


def images(count: int = 2) -> list[Tensor]:
    """The same images at every call."""
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, 64, 80, generator=generator) for _ in range(count)]
