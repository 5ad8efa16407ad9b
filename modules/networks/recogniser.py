"""The plain recognition network: the part of MPM that is deployed."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from datamodules.files.errors import UserError
from modules.networks.preprocessing import input_normalisation
from modules.networks.timm_networks import timm_network


class Recogniser(nn.Module):
    """Normalisation and a timm classifier; it takes pixels in [0, 1].

    Args:
        architecture: name of any timm network that has `forward_intermediates`.
        num_classes: number of object categories.
        model_args: further arguments of the timm network, such as `act_layer: gelu`.
        mean: per-channel mean of the normalisation, in pixel units; None for what timm's
            configuration of the network says.
        std: per-channel standard deviation, likewise.

    Raises:
        UserError: if timm has no such network, it does not take the arguments or has no
            intermediate features.
    """

    def __init__(
        self,
        architecture: str,
        num_classes: int,
        model_args: Mapping[str, Any] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.network = timm_network(architecture, model_args, num_classes=num_classes)
        self.normalise = input_normalisation(self.network, mean, std)
        if not hasattr(self.network, "forward_intermediates"):
            raise UserError(f"timm network '{architecture}' gives no intermediate features")

    def channels(self, count: int) -> list[int]:
        """Channels of the last `count` blocks, fine to coarse.

        Raises:
            UserError: if the network has fewer blocks.
        """
        info = list(self.network.feature_info)
        if len(info) < count:
            raise UserError(f"the network has {len(info)} blocks, {count} are supervised")
        return [block["num_chs"] for block in info[-count:]]

    @property
    def single_scale(self) -> bool:
        """Whether all blocks have one resolution, as in a plain vision transformer."""
        return len({block["reduction"] for block in self.network.feature_info}) == 1

    def forward(self, images: Tensor) -> Tensor:
        """Class logits `(B, num_classes)` of images `(B, 3, H, W)` in [0, 1]."""
        return self.network(self.normalise(images))

    def forward_with_features(self, images: Tensor, count: int) -> tuple[Tensor, list[Tensor]]:
        """Class logits and the features of the last `count` blocks, fine to coarse.

        Args:
            images: `(B, 3, H, W)` in [0, 1].
            count: how many blocks.

        Returns:
            Logits `(B, num_classes)` and feature maps `(B, C_i, h_i, w_i)`.
        """
        last, features = self.network.forward_intermediates(self.normalise(images), indices=count)
        return self.network.forward_head(last), features
