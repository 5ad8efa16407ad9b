"""Feature pyramid over any timm network with four stages."""

from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from modules.networks.normalisation import Normalise

STRIDES = [4, 8, 16, 32]


class TimmFPN(nn.Module):
    """Backbone of timm with a feature pyramid of torchvision on its last four stages.

    Channels-last backbones (Swin) give features that were never normalised; like in the
    detection code of Swin (Liu et al. 2021) each of their stages gets a LayerNorm.

    Args:
        backbone: name of a timm network that supports `features_only`.
        channels: channels of every pyramid level.
        pretrained: start from timm's weights, which are downloaded.
        weights: a local file with the same weights, used instead of a download.

    Attributes:
        normalisation: the layer that expects images in [0, 1]; apply it before padding.
        out_channels: `channels`.

    Raises:
        FileNotFoundError: if `weights` does not exist.
        ValueError: if timm does not know the network or it lacks maps at strides 4, 8, 16, 32.
    """

    def __init__(
        self,
        backbone: str,
        channels: int,
        pretrained: bool = False,
        weights: Path | None = None,
    ) -> None:
        super().__init__()
        if not timm.is_model(backbone):
            raise ValueError(f"backbone '{backbone}' is no network of timm: see timm.list_models()")
        if weights is not None and not weights.is_file():
            raise FileNotFoundError(f"backbone weights {weights} do not exist")
        options: Any = {"strict_img_size": False} if backbone.startswith("swin") else {}
        body: Any = timm.create_model(
            backbone,
            features_only=True,
            out_indices=(-4, -3, -2, -1),
            pretrained=pretrained or weights is not None,
            pretrained_cfg_overlay={"file": str(weights)} if weights else None,
            **options,
        )
        if body.feature_info.reduction() != STRIDES:
            raise ValueError(
                f"backbone '{backbone}' gives maps at strides {body.feature_info.reduction()}"
                f", Mask R-CNN needs {STRIDES}: choose a four-stage network (resnet, swin, ...)"
            )
        self.body = body
        data = timm.data.resolve_model_data_config(body)
        self.normalisation = Normalise(data["mean"], data["std"])
        widths = body.feature_info.channels()
        self.channels_last = str(getattr(body, "output_fmt", "NCHW")).endswith("NHWC")
        self.norms = nn.ModuleList(
            nn.LayerNorm(width) if self.channels_last else nn.Identity() for width in widths
        )
        self.fpn = FeaturePyramidNetwork(widths, channels, extra_blocks=LastLevelMaxPool())
        self.out_channels = channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Five levels `(B, channels, H/s, W/s)` of normalised images `(B, 3, H, W)`.

        Keys "0" to "3" have s = 4 to 32, "pool" s = 64; H and W must be multiples of 32.
        """
        maps = [norm(x) for norm, x in zip(self.norms, self.body(images), strict=True)]
        if self.channels_last:
            maps = [x.permute(0, 3, 1, 2).contiguous() for x in maps]
        return self.fpn({str(level): x for level, x in enumerate(maps)})
