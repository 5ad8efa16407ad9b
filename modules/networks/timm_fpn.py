"""Feature pyramid over any timm network with four stages."""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import timm
import torch
from timm.models import group_parameters
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from datamodules.files.errors import MissingInputError, UserError
from modules.networks.backbone_weights import backbone_state
from modules.networks.preprocessing import input_normalisation
from modules.networks.timm_networks import timm_network
from modules.optimisation.parameter_groups import NORMS

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
        norm: normalisation of the pyramid's convolutions, see `norm_layer`.
        grad_checkpointing: recompute the backbone's blocks in the backward pass.
        frozen_stages: so many first stages, and the stem, are not trained, nor the statistics of
            their normalisation; 0 trains all.
        backbone_args: further arguments of the timm network, such as `pad_type: ""`.

    Attributes:
        normalisation: the layer that expects images in [0, 1]; apply it before padding.
        out_channels: `channels`.

    Raises:
        MissingInputError: if `weights` does not exist.
        UserError: if timm does not know the network or its arguments, it lacks maps at strides 4,
            8, 16, 32 or cannot be recomputed block by block, the weights do not fit it, or
            `frozen_stages` is not 0 to 4.
    """

    def __init__(
        self,
        backbone: str,
        channels: int,
        pretrained: bool = False,
        weights: Path | None = None,
        norm: str = "",
        grad_checkpointing: bool = False,
        frozen_stages: int = 0,
        backbone_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if weights is not None and not weights.is_file():
            raise MissingInputError(f"backbone weights {weights} do not exist")
        arguments = dict(backbone_args or {})
        if backbone.startswith("swin"):
            arguments["strict_img_size"] = False
        overlay = None
        if weights is not None:
            overlay = {"state_dict": backbone_state(backbone, weights, arguments)}
        body = timm_network(
            backbone,
            arguments,
            features_only=True,
            out_indices=(-4, -3, -2, -1),
            pretrained=pretrained or weights is not None,
            pretrained_cfg_overlay=overlay,
        )
        if body.feature_info.reduction() != STRIDES:
            raise UserError(
                f"backbone '{backbone}' gives maps at strides {body.feature_info.reduction()}"
                f", Mask R-CNN needs {STRIDES}: choose a four-stage network (resnet, swin, ...)"
            )
        self.backbone_name = backbone
        self.body = body
        if grad_checkpointing:
            _checkpoint(body)
        self.normalisation = input_normalisation(body)
        widths = body.feature_info.channels()
        self.channels_last = str(getattr(body, "output_fmt", "NCHW")).endswith("NHWC")
        self.norms = nn.ModuleList(
            nn.LayerNorm(width) if self.channels_last else nn.Identity() for width in widths
        )
        self.fpn = FeaturePyramidNetwork(
            widths, channels, extra_blocks=LastLevelMaxPool(), norm_layer=norm_layer(norm)
        )
        self.out_channels = channels
        self.frozen_norms = self._freeze(frozen_stages)

    def train(self, mode: bool = True) -> Self:
        """Switches the mode, but for the normalisation of frozen stages."""
        super().train(mode)
        for norm in self.frozen_norms:
            norm.eval()
        return self

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Five levels `(B, channels, H/s, W/s)` of normalised images `(B, 3, H, W)`.

        Keys "0" to "3" have s = 4 to 32, "pool" s = 64; H and W must be multiples of 32.
        """
        maps = [norm(x) for norm, x in zip(self.norms, self.body(images), strict=True)]
        if self.channels_last:
            maps = [x.permute(0, 3, 1, 2) for x in maps]  # convolutions like this layout
        return self.fpn({str(level): x for level, x in enumerate(maps)})

    def _freeze(self, stages: int) -> list[nn.Module]:
        """Freezes the stem and the first stages, and returns their normalisation layers."""
        if not 0 <= stages <= len(STRIDES):
            raise UserError(f"frozen_stages {stages} is not 0 to {len(STRIDES)}")
        if stages == 0:
            return []
        names = self.body.feature_info.module_name()  # `features_only` may spell them with _
        last = tuple(f"body.{n}." for n in (names[stages - 1], names[stages - 1].replace(".", "_")))
        layers = self.layer_ids()
        end = max(layer for name, layer in layers.items() if name.startswith(last))
        for name, parameter in self.named_parameters():
            if layers.get(name, end + 1) <= end:
                parameter.requires_grad_(False)
        norms = [module for module in self.body.modules() if isinstance(module, NORMS)]
        return [m for m in norms if not any(p.requires_grad for p in m.parameters())]

    def layer_ids(self) -> dict[str, int]:
        """Depth of every parameter of the backbone: 0 for the stem, then one a block.

        The grouping is timm's own (`group_matcher`).

        Raises:
            UserError: if timm does not know the layers of this backbone.
        """
        # `features_only` renames the layers, so the grouping is asked of the whole network.
        with torch.device("meta"):
            whole: Any = timm.create_model(self.backbone_name, pretrained=False)
        known: Any = group_parameters(whole, whole.group_matcher(coarse=False), reverse=True)
        found = {}
        for name, _ in self.body.named_parameters():
            plain = name.removeprefix("model.")
            spellings = (plain, re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", plain))
            layer = next((known[s] for s in spellings if s in known), None)
            if layer is None:
                raise UserError(
                    f"timm does not say to which layer {name} of '{self.backbone_name}' belongs: "
                    "set layer_decay to 1"
                )
            found[f"body.{name}"] = layer
        return found


def norm_layer(name: str) -> Callable[[int], nn.Module] | None:
    """Normalisation layer for a number of channels.

    Args:
        name: "" for none, "GN" (32 groups at most), "BN" or "SyncBN".

    Raises:
        UserError: if there is no such normalisation.
    """
    layers: dict[str, Callable[[int], nn.Module] | None] = {
        "": None,
        "GN": lambda channels: nn.GroupNorm(math.gcd(32, channels), channels),
        "BN": nn.BatchNorm2d,
        "SyncBN": nn.SyncBatchNorm,
    }
    if name not in layers:
        raise UserError(f"head_norm '{name}' is none of {list(layers)}")
    return layers[name]


def _checkpoint(body: Any) -> None:
    """Turns gradient checkpointing on, per block where the stages can."""
    stages = [m for m in body.modules() if m is not body and hasattr(m, "grad_checkpointing")]
    for stage in stages:
        stage.grad_checkpointing = True
    if not stages:
        try:
            body.set_grad_checkpointing(True)
        except AssertionError:
            raise UserError(
                "timm cannot recompute this backbone's blocks: set grad_checkpointing to false"
            ) from None
