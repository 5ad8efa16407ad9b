"""The multi-scale bypass: part supervision for the last blocks of a recogniser."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.losses.part_level import PartLevel


class SeparableConv(nn.Module):
    """Depthwise 3x3 then pointwise convolution, both without bias.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False
        )
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, in_channels, h, w)` to `(B, out_channels, h, w)`."""
        return self.pointwise(self.depthwise(x))


class PartBypass(nn.Module):
    """Lateral layers, an FPN-style top-down path and part heads (PartImageNet++ §4.2).

    It hangs on the features of the last blocks during training and is dropped at inference.
    Laterals are 1x1 convolutions with batch norm to a quarter of the block's channels; heads
    and top-down layers are GELU and a `SeparableConv`.

    Args:
        channels: channels of the supervised blocks, fine to coarse, such as (512, 1024, 2048).
        num_parts: K, the number of part categories without the background.
        top_down: add the upsampled coarser level to each finer one.
    """

    def __init__(self, channels: Sequence[int], num_parts: int, top_down: bool = True) -> None:
        super().__init__()
        widths = [count // 4 for count in channels]
        self.laterals = nn.ModuleList(
            nn.Sequential(nn.Conv2d(count, width, 1, bias=False), nn.BatchNorm2d(width))
            for count, width in zip(channels, widths, strict=True)
        )
        self.heads = nn.ModuleList(SeparableConv(width, num_parts + 1) for width in widths)
        self.top_down = nn.ModuleList(
            SeparableConv(coarse, fine) for fine, coarse in pairwise(widths) if top_down
        )

    def forward(self, features: Sequence[Tensor]) -> list[PartLevel]:
        """Levels of part prediction.

        Args:
            features: `(B, channels[i], h_i, w_i)`, fine to coarse.

        Returns:
            One `PartLevel` per input, fine to coarse.
        """
        maps = [lateral(x) for lateral, x in zip(self.laterals, features, strict=True)]
        if self.top_down:
            for i in range(len(maps) - 2, -1, -1):
                coarse = self.top_down[i](F.gelu(maps[i + 1]))
                maps[i] = maps[i] + F.interpolate(
                    coarse, size=maps[i].shape[-2:], mode="bilinear", align_corners=False
                )
        heads = cast(Iterable[SeparableConv], self.heads)
        return [
            PartLevel(head.depthwise(F.gelu(x)), head.pointwise.weight.flatten(1))
            for head, x in zip(heads, maps, strict=True)
        ]

    @torch.no_grad()
    def predict(self, features: Sequence[Tensor]) -> Tensor:
        """Part ids `(B, h, w)` at the finest supervised resolution, 0 = background."""
        return self(features)[0].logits().argmax(1)
