"""Values that are not finite are refused where they enter: NaN logits would answer class 0."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.files.errors import UserError

SHOWN = 3


def require_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuses weights that are not finite.

    Args:
        tensors: by name.
        source: what they come from, for the message.

    Raises:
        UserError: naming the first such tensors.
    """
    wrong = [
        name
        for name, value in tensors.items()
        if value.is_floating_point() and not torch.isfinite(value).all()
    ]
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" * (len(wrong) > SHOWN)
        raise UserError(
            f"{source} holds values that are not finite in {', '.join(wrong[:SHOWN])}{more}: its "
            "training diverged; take an earlier checkpoint or train with a lower learning rate"
        )


class FiniteLogits:
    """Forward hook of a network that refuses logits that are not finite, at every call.

    Args:
        name: of the model, for the message.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: nn.Module, inputs: Any, logits: Any) -> None:
        """Looks at the logits `(B, num_classes)` of a call.

        Raises:
            UserError: if one of them is not finite.
        """
        if isinstance(logits, Tensor) and not torch.isfinite(logits).all():
            count = int((~torch.isfinite(logits)).any(-1).sum())
            raise UserError(
                f"model {self.name} gives logits that are not finite for {count} of {len(logits)} "
                "images: such an answer is neither right nor wrong; evaluate in float32 "
                "(--trainer.precision=32-true) or another checkpoint"
            )
