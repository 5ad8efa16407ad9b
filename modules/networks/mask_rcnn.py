"""Mask R-CNN for thousands of part classes, on torchvision's detection engine.

Two things differ from `torchvision.models.detection.MaskRCNN`: the category filter works inside
the post-processing, and a mask is computed for the one class that needs it instead of for all.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import (
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import resize_boxes
from torchvision.ops import MultiScaleRoIAlign

from modules.networks.anchors import ASPECT_RATIOS, pyramid_anchors
from modules.networks.detector_outputs import refuse_not_finite
from modules.networks.detector_settings import MaskDetectorSettings
from modules.networks.mask_geometry import CentredTransform, paste_masks
from modules.networks.part_roi_heads import ClassMaskPredictor, Detections, PartRoIHeads
from modules.networks.timm_fpn import TimmFPN, norm_layer

LEVELS = ["0", "1", "2", "3"]


class Float32RPNHead(RPNHead):
    """RPN head whose outputs are float32, so that under mixed precision boxes stay exact."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness and box regression maps of each pyramid level."""
        objectness, regression = super().forward(x)
        return [y.float() for y in objectness], [y.float() for y in regression]


class PartMaskRCNN(nn.Module):
    """Mask R-CNN (He et al. 2017) with an FPN, for images in [0, 1] of any size.

    Args:
        backbone: pyramid network; brings the input normalisation.
        num_classes: K + 1, with the background as class 0.
        settings: sizes of the detector.
    """

    def __init__(self, backbone: TimmFPN, num_classes: int, settings: MaskDetectorSettings) -> None:
        super().__init__()
        channels = backbone.out_channels
        kept = dict.fromkeys(("training", "testing"), settings.rpn_proposals)
        self.transform = CentredTransform(
            settings.min_size, settings.max_size, [0.0] * 3, [1.0] * 3
        )
        self.backbone = backbone
        self.rpn = RegionProposalNetwork(
            pyramid_anchors(settings.anchor_sizes),
            Float32RPNHead(channels, len(ASPECT_RATIOS), settings.rpn_convs),
            0.7, 0.3, 256, 0.5, kept, kept, 0.7,
        )  # fmt: skip
        norm = norm_layer(settings.head_norm)
        box_head: nn.Module = TwoMLPHead(channels * 7**2, settings.box_head_dim)
        if norm is not None:
            box_head = FastRCNNConvFCHead(
                (channels, 7, 7), [channels] * 4, [settings.box_head_dim], norm
            )
        self.roi_heads = PartRoIHeads(
            MultiScaleRoIAlign(LEVELS, output_size=7, sampling_ratio=settings.roi_samples),
            box_head,
            FastRCNNPredictor(settings.box_head_dim, num_classes),
            0.5, 0.5, settings.rois_per_image, 0.25, None,
            settings.score_threshold, 0.5, settings.detections_per_image,
            MultiScaleRoIAlign(LEVELS, output_size=14, sampling_ratio=settings.roi_samples),
            MaskRCNNHeads(channels, list(settings.mask_channels), 1, norm),
            ClassMaskPredictor(
                settings.mask_channels[-1], settings.mask_channels[-1], num_classes
            ),
            class_loss=settings.class_loss,
            detections_per_part=settings.detections_per_part,
        )  # fmt: skip
        refuse_not_finite(self.rpn.head, self.roi_heads.box_predictor.cls_score)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # faster

    def set_class_counts(self, counts: Tensor) -> None:
        """Number of training images with each class `(K + 1,)`, for the federated loss."""
        self.roi_heads.class_counts.copy_(counts)

    def layer_ids(self) -> dict[str, int]:
        """Depth of the backbone's parameters, for layer-wise decay of the learning rate."""
        return {f"backbone.{name}": layer for name, layer in self.backbone.layer_ids().items()}

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Losses of a batch, to be summed.

        Args:
            images: `(3, H, W)` in [0, 1], sizes may differ.
            targets: `boxes (N, 4)` as x1, y1, x2, y2 in pixels, `labels (N,)` int64 in 1..K,
                `masks (N, H, W)` in {0, 1}; N may be 0.
        """
        normalised = [self.backbone.normalisation(image) for image in images]
        batch, targets = self.transform(normalised, targets)
        features = self.backbone(batch.tensors)
        proposals, losses = self.rpn(batch, features, targets)
        losses = {
            "loss_objectness": losses["loss_objectness"],
            "loss_rpn": losses["loss_rpn_box_reg"],
        }
        return losses | self.roi_heads.losses(features, proposals, batch.image_sizes, targets)

    def detect(
        self, images: list[Tensor], filters: Sequence[Tensor | None] = (None,)
    ) -> list[list[Detections]]:
        """Detections under each filter; call it in eval mode.

        Args:
            images: `(3, H, W)` in [0, 1], sizes may differ.
            filters: bool `(B, K + 1)`, the parts allowed in each image, or None for all.

        Returns:
            For each filter and image `boxes (N, 4)` in pixels, `labels (N,)` in 1..K,
            `scores (N,)` of the full distribution, `masks (N, H, W)` bool, by falling score.
        """
        original = [(image.shape[-2], image.shape[-1]) for image in images]
        batch, _ = self.transform([self.backbone.normalisation(image) for image in images])
        features = self.backbone(batch.tensors)
        proposals, _ = self.rpn(batch, features)
        results = self.roi_heads.detect(features, proposals, batch.image_sizes, filters)
        for detections in results:
            for image, resized, size in zip(detections, batch.image_sizes, original, strict=True):
                image["boxes"] = resize_boxes(image["boxes"], resized, size)
                image["masks"] = paste_masks(image["masks"], image["boxes"], size)
        return results
