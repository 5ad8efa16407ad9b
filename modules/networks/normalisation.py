"""Input normalisation as a layer, so that attacks and users see pixels in [0, 1]."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from datamodules.files.errors import UserError


class Normalise(nn.Module):
    """Channel-wise `(image - mean) / std`.

    Mean and std are buffers outside the state dict: weights stay those of the plain network.

    Args:
        mean: mean of each channel, in [0, 1] pixel units.
        std: standard deviation of each channel, in [0, 1] pixel units.
        source: where they come from, for people.

    Raises:
        UserError: if the lengths differ or a standard deviation is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], source: str = "as given"
    ) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise UserError(
                f"mean {list(mean)} and std {list(std)} must have equal lengths, std above 0"
            )
        self.source = source
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalises images `(B, C, H, W)` in [0, 1]."""
        return (images - self.mean) / self.std

    @property
    def values(self) -> tuple[list[float], list[float]]:
        """Mean and std of the channels, in [0, 1] pixel units, without the noise of float32."""
        mean, std = ([round(v, 6) for v in x.flatten().tolist()] for x in (self.mean, self.std))
        return mean, std

    def take(self, other: "Normalise") -> None:
        """Normalises as another layer does, and says where that came from.

        Raises:
            UserError: if it is of another number of channels.
        """
        if other.mean.shape != self.mean.shape:
            raise UserError(f"images have {len(self.mean)} channels, not {len(other.mean)}")
        self.mean.copy_(other.mean)
        self.std.copy_(other.std)
        self.source = other.source

    def __str__(self) -> str:
        mean, std = self.values
        return f"images are normalised by mean {mean} and std {std}: {self.source}"


class Normalised(nn.Module):
    """A classifier of pixels in [0, 1]: normalisation followed by a network.

    Args:
        network: classifier of normalised images `(B, 3, H, W)`; has `num_classes`.
        mean: mean of each channel, in [0, 1] pixel units.
        std: standard deviation of each channel, in [0, 1] pixel units.
        source: where they come from, for people.
    """

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        source: str = "as given",
    ) -> None:
        super().__init__()
        self.normalise = Normalise(mean, std, source)
        self.network = network

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return int(self.network.num_classes)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, num_classes)` of images `(B, 3, H, W)` in [0, 1]."""
        return self.network(self.normalise(images))
