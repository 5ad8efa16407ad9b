"""A pyramid from the one resolution that a plain vision transformer keeps."""

from torch import Tensor, nn


class SimplePyramid(nn.Module):
    """Maps at twice, once and half the resolution of one map (Li et al. 2022, ViTDet).

    Like the bypass that reads it, it is dropped at inference.

    Args:
        channels: channels of the map.

    Attributes:
        channels: channels of the three levels, fine to coarse.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = [channels // 2, channels, channels]
        self.finer = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)
        self.coarser = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Levels `(B, C / 2, 2h, 2w)`, `(B, C, h, w)` and `(B, C, h // 2, w // 2)`.

        Args:
            x: `(B, C, h, w)`.
        """
        return [self.finer(x), x, self.coarser(x)]
