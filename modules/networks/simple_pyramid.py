"""A pyramid from the one resolution that a plain vision transformer keeps."""

from torch import Tensor, nn


class SimplePyramid(nn.Module):
    """Maps at twice, once and half the resolution of one map (Li et al. 2022, ViTDet).

    Like the bypass that reads it, it is dropped at inference.

    Args:
        channels: channels of the map.
        num_levels: how many of the three there are, the coarsest first.

    Attributes:
        channels: channels of the levels, fine to coarse.
    """

    def __init__(self, channels: int, num_levels: int = 3) -> None:
        super().__init__()
        self.channels = [channels // 2, channels, channels][-num_levels:]
        self.finer: nn.Module | None = None
        if len(self.channels) == 3:
            self.finer = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)
        self.coarser = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The last of `(B, C / 2, 2h, 2w)`, `(B, C, h, w)` and `(B, C, h // 2, w // 2)`.

        Args:
            x: `(B, C, h, w)`.
        """
        finer = [self.finer(x)] if self.finer is not None else []
        return [*finer, x, self.coarser(x)][-len(self.channels) :]
