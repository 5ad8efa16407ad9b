"""What part heads hand to the part loss."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class PartLevel(NamedTuple):
    """One supervised resolution before its last projection.

    Logits are `F.conv2d(features, weight[..., None, None])`; the loss takes the two apart, so
    that `(B, K + 1, h, w)` need not exist.

    Attributes:
        features: `(B, C, h, w)`.
        weight: `(K + 1, C)`.
    """

    features: Tensor
    weight: Tensor

    def logits(self) -> Tensor:
        """Part logits `(B, K + 1, h, w)`."""
        return F.conv2d(self.features, self.weight[..., None, None])
