"""Faster R-CNN whose backbone is a classifier of timm."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from timm.models import group_parameters
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from datamodules.files.errors import UserError
from modules.networks.anchors import pyramid_anchors
from modules.networks.detector_outputs import refuse_not_finite
from modules.networks.detector_settings import DetectorSettings

STRIDES = [4, 8, 16, 32]
PROBE = (64, 96)  # height and width of the image that a backbone is tried with


class ClassifierPyramid(nn.Module):
    """Feature pyramid (Lin et al. 2017) on the last four stages of a classifier.

    Args:
        network: classifier of timm; its head is dropped and what follows the last stage is unused.
        channels: channels of every pyramid level.
        frozen_stages: so many first stages, and the stem, are not trained; 0 trains all.
        frozen_statistics: keep the network in eval mode, so that its batch norms use the
            statistics they came with.

    Attributes:
        out_channels: `channels`.

    Raises:
        UserError: if the network has no maps at strides 4, 8, 16 and 32, or cannot take images
            of another size.
    """

    def __init__(
        self, network: Any, channels: int, frozen_stages: int, frozen_statistics: bool
    ) -> None:
        super().__init__()
        self.network = network
        self.frozen_statistics = frozen_statistics
        name = type(network).__name__
        network.reset_classifier(0)
        network.eval()
        try:
            with torch.no_grad():
                maps = self._stages(torch.zeros(1, 3, *PROBE))
        except (AttributeError, AssertionError, RuntimeError) as error:
            raise UserError(
                f"{name} gives no feature maps of a {PROBE[0]}x{PROBE[1]} image ({error}): "
                "choose a network with four stages that takes images of any size"
            ) from None
        if [PROBE[0] // x.shape[2] for x in maps] != STRIDES:
            raise UserError(
                f"{name} has no feature maps at strides {STRIDES}, a pyramid needs them"
            )
        self._freeze(frozen_stages)
        widths = [x.shape[1] for x in maps]
        self.fpn = FeaturePyramidNetwork(widths, channels, extra_blocks=LastLevelMaxPool())
        self.out_channels = channels
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Switches the mode, but for frozen statistics."""
        super().train(mode)
        self.network.train(mode and not self.frozen_statistics)
        return self

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Five levels `(B, channels, H/s, W/s)` of normalised images `(B, 3, H, W)`.

        Keys "0" to "3" have s = 4 to 32, "pool" s = 64; H and W must be multiples of 32.
        """
        return self.fpn({str(level): x for level, x in enumerate(self._stages(images))})

    def _stages(self, images: Tensor) -> list[Tensor]:
        return self.network.forward_intermediates(images, indices=4, intermediates_only=True)

    def _freeze(self, stages: int) -> None:
        """Trains what lies after the frozen stages and not after the last one."""
        matcher = self.network.group_matcher(coarse=True)
        depth: Any = group_parameters(self.network, matcher, reverse=True)
        names = [stage["module"] for stage in self.network.feature_info[-4:]]
        ends = [max(d for n, d in depth.items() if n.startswith(f"{name}.")) for name in names]
        first = ends[stages - 1] if stages else -1
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad = first < depth[name] <= ends[-1]


def faster_rcnn(
    backbone: ClassifierPyramid,
    num_classes: int,
    settings: DetectorSettings,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> FasterRCNN:
    """Torchvision's Faster R-CNN (Ren et al. 2015) of images in [0, 1] of any size.

    Normalisation and resizing are its first layers, so a gradient reaches the pixels given.

    Args:
        backbone: pyramid network.
        num_classes: K + 1, with the background as class 0.
        settings: sizes of the detector.
        mean: mean of each channel, in [0, 1] pixel units.
        std: standard deviation of each channel, in [0, 1] pixel units.
    """
    kept: Mapping[str, int] = {
        f"rpn_{when}_nms_top_n_{mode}": settings.rpn_proposals
        for when in ("pre", "post")
        for mode in ("train", "test")
    }
    network = FasterRCNN(
        backbone,
        min_size=settings.min_size,
        max_size=settings.max_size,
        image_mean=list(mean),
        image_std=list(std),
        rpn_anchor_generator=pyramid_anchors(settings.anchor_sizes),
        box_head=TwoMLPHead(backbone.out_channels * 7**2, settings.box_head_dim),
        box_predictor=FastRCNNPredictor(settings.box_head_dim, num_classes),
        box_batch_size_per_image=settings.rois_per_image,
        box_score_thresh=settings.score_threshold,
        box_detections_per_img=settings.detections_per_image,
        **kept,
    )
    refuse_not_finite(network.rpn.head, network.roi_heads.box_predictor)
    return network
