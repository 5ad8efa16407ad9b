"""The classes that masks are supervised with: parts, or each object as one region (Tab. S6)."""

from typing import Literal

import torch
from torch import Tensor

Supervision = Literal["parts", "objects"]


def mask_class_matrix(object_parts: Tensor, supervision: Supervision) -> Tensor:
    """Which mask classes occur on which object, bool `(num_objects, classes)`.

    Args:
        object_parts: bool `(num_objects, K + 1)`, which parts can occur on which object.
        supervision: what the masks show.
    """
    if supervision == "parts":
        return object_parts
    objects = object_parts.shape[0]
    background = torch.ones(objects, 1, dtype=torch.bool)
    return torch.cat([background, torch.eye(objects, dtype=torch.bool)], 1)


def mask_labels(part_labels: Tensor, labels: Tensor, supervision: Supervision) -> Tensor:
    """Ids of the mask classes at every cell, int64 `(B, h, w)`.

    Args:
        part_labels: ids of the parts in 0..K, int64 `(B, h, w)`.
        labels: object classes `(B,)`.
        supervision: what the masks show.
    """
    if supervision == "parts":
        return part_labels
    return (part_labels > 0) * (labels + 1).view(-1, 1, 1)
