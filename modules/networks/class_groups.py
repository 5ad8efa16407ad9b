"""A classifier that answers with groups of its classes."""

from typing import Any

import torch
from torch import Tensor, nn

from datamodules.files.errors import UserError


def largest_logits(logits: Tensor, groups: Tensor) -> Tensor:
    """The largest logit of each group, so the other classes have no say.

    The answer is the group of the best class that is not masked out (PartImageNet++ §I, Tables S2
    and S3); gradients pass to that class, shared where several are equal.

    Args:
        logits: `(B, num_classes)`.
        groups: group of each class, int64 `(num_classes,)`, -1 for none; groups 0..G-1 all occur.

    Returns:
        `(B, G)`.
    """
    kept = (groups >= 0).nonzero().flatten()
    members = groups[kept]
    lowest = logits.new_full((len(logits), int(members.max()) + 1), -torch.inf)
    index = members.expand(len(logits), -1)
    return lowest.scatter_reduce(1, index, logits.index_select(1, kept), "amax")


class ClassGroups(nn.Module):
    """Wraps a classifier, so that everything that sees its logits sees those of the groups.

    Args:
        network: classifier of pixels in [0, 1]; a `PartNetwork` keeps its parts.
        groups: group of each class, as for `largest_logits`.
    """

    groups: Tensor

    def __init__(self, network: nn.Module, groups: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("groups", groups)
        self.train(network.training)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, G)` of images `(B, 3, H, W)` in [0, 1]."""
        return self._grouped(self.network(images))

    def surrogate(self, images: Tensor) -> Tensor:
        """Logits `(B, G)` that gradients pass; see `PartNetwork.surrogate`."""
        return self._grouped(self._method("surrogate")(images))

    def forward_with_parts(self, images: Tensor) -> tuple[Tensor, list[Any]]:
        """Logits `(B, G)` and the part levels; see `PartNetwork.forward_with_parts`."""
        logits, levels = self._method("forward_with_parts")(images)
        return self._grouped(logits), levels

    def _grouped(self, logits: Tensor) -> Tensor:
        if logits.shape[1] != len(self.groups):
            raise UserError(
                f"{type(self.network).__name__} has {logits.shape[1]} classes, the data has "
                f"{len(self.groups)} object categories: give the data it was trained on"
            )
        return largest_logits(logits, self.groups)

    def _method(self, name: str) -> Any:
        if not hasattr(self.network, name):
            raise UserError(
                f"{type(self.network).__name__} has no `{name}`: use a threat that goes forward"
            )
        return getattr(self.network, name)
