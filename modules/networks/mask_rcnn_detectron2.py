"""Mask R-CNN for thousands of part classes, on detectron2's engine.

The same images, targets and detections as `modules.networks.mask_rcnn`, with detectron2's own
modules inside. detectron2 is an optional extra: importing this file without it says how to
install it.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from datamodules.files.errors import UserError
from modules.networks.anchors import ASPECT_RATIOS
from modules.networks.detector_outputs import refuse_not_finite
from modules.networks.detector_settings import MaskDetectorSettings
from modules.networks.normalisation import Normalise
from modules.networks.part_roi_heads import Detections

try:
    from detectron2.layers.batch_norm import NaiveSyncBatchNorm
    from detectron2.modeling import FPN, detector_postprocess
    from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool
    from detectron2.modeling.box_regression import Box2BoxTransform
    from detectron2.modeling.matcher import Matcher
    from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
    from detectron2.structures import BitMasks, Boxes, ImageList, Instances
    from detectron2.utils.events import EventStorage

    from modules.networks.detectron2_backbones import build_backbone, layer_ids
    from modules.networks.detectron2_heads import build_roi_heads
except ImportError as error:
    raise UserError(
        f"engine 'detectron2' cannot be used ({error}): install detectron2 as docs/detectron2.md "
        "says, or set engine to torchvision"
    ) from error

STRIDES = [4, 8, 16, 32, 64]
HEAD_NORMS = ("", "BN", "SyncBN", "GN")
FEDERATED_POWER = 0.5
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Detectron2MaskRCNN(nn.Module):
    """Mask R-CNN (He et al. 2017) with an FPN, for images in [0, 1] of any size.

    With a normalisation in the heads the box head has four convolutions and one layer, as in
    detectron2's LSJ baselines; without one it has the usual two layers.

    Args:
        backbone: name of the backbone, `swin_base` or `resnet50` for example.
        weights: local file with the backbone's weights; None leaves them random.
        num_classes: K + 1, with the background as class 0.
        settings: sizes of the detector.
        grad_checkpointing: compute the blocks of a Swin again in the backward pass.

    Raises:
        UserError: if the backbone or `head_norm` is unknown or the weights do not fit.
        MissingInputError: if `weights` does not exist.
    """

    def __init__(
        self,
        backbone: str,
        weights: Path | None,
        num_classes: int,
        settings: MaskDetectorSettings,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if settings.head_norm not in HEAD_NORMS:
            raise UserError(f"head_norm '{settings.head_norm}' is none of {HEAD_NORMS}")
        self.detections_per_part = settings.detections_per_part
        self.normalisation = Normalise(IMAGENET_MEAN, IMAGENET_STD)
        self.transform = GeneralizedRCNNTransform(
            settings.min_size, settings.max_size, [0.0] * 3, [1.0] * 3
        )
        body = build_backbone(backbone, weights, grad_checkpointing)
        norm = _norm(settings.head_norm)
        self.backbone = FPN(
            body,
            list(body.output_shape()),
            settings.fpn_channels,
            norm=norm,
            top_block=LastLevelMaxPool(),
        )
        self.proposal_generator = RPN(
            in_features=["p2", "p3", "p4", "p5", "p6"],
            head=StandardRPNHead(
                in_channels=settings.fpn_channels,
                num_anchors=len(ASPECT_RATIOS),
                conv_dims=[-1] * settings.rpn_convs,
            ),
            anchor_generator=DefaultAnchorGenerator(
                sizes=[[size] for size in settings.anchor_sizes],
                aspect_ratios=[ASPECT_RATIOS],
                strides=STRIDES,
                offset=0.0,
            ),
            anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
            box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_topk=(2 * settings.rpn_proposals, settings.rpn_proposals),
            post_nms_topk=(settings.rpn_proposals, settings.rpn_proposals),
            nms_thresh=0.7,
        )
        self.roi_heads = build_roi_heads(
            settings.fpn_channels,
            num_classes - 1,
            STRIDES[:4],
            mask_channels=settings.mask_channels,
            box_head_dim=settings.box_head_dim,
            rois_per_image=settings.rois_per_image,
            norm=norm,
            federated=settings.class_loss == "federated",
            score_threshold=settings.score_threshold,
            detections_per_image=settings.detections_per_image,
        )
        refuse_not_finite(self.proposal_generator.rpn_head, self.roi_heads.box_predictor.cls_score)

    def layer_ids(self) -> dict[str, int]:
        """Depth of the backbone's parameters, for layer-wise decay of the learning rate."""
        prefix = "backbone.bottom_up."
        return {prefix + name: i for name, i in layer_ids(self.backbone.bottom_up).items()}

    def set_class_counts(self, counts: Tensor) -> None:
        """Sets how often the federated loss draws a class it has no example of.

        Args:
            counts: number of training images that show each class, `(K + 1,)`; the background's
                is ignored. A class without images is drawn like one with a single image.

        Raises:
            UserError: if the number of classes differs.
        """
        parts = self.roi_heads.num_classes
        if counts.shape != (parts + 1,):
            raise UserError(f"class counts {tuple(counts.shape)} must have shape {(parts + 1,)}")
        if self.roi_heads.box_predictor.use_fed_loss:
            weights = self.roi_heads.box_predictor.fed_loss_cls_weights
            weights.copy_(counts[1:].to(weights).clamp(min=1) ** FEDERATED_POWER)

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The losses of `PartMaskRCNN.forward`; call it in training mode."""
        batch, resized = self._prepare(images, targets)
        truth = [
            Instances(
                size,
                gt_boxes=Boxes(target["boxes"]),
                gt_classes=target["labels"] - 1,
                gt_masks=BitMasks(target["masks"]),
            )
            for size, target in zip(batch.image_sizes, resized, strict=True)
        ]
        with EventStorage():  # the library's losses insist on a place for their statistics
            features = self.backbone(batch.tensor)
            proposals, rpn = self.proposal_generator(batch, features, truth)
            _, losses = self.roi_heads(batch, features, proposals, truth)
        return {
            "loss_objectness": rpn["loss_rpn_cls"],
            "loss_rpn": rpn["loss_rpn_loc"],
            "loss_class": losses["loss_cls"],
            "loss_box": losses["loss_box_reg"],
            "loss_mask": losses["loss_mask"],
        }

    def detect(
        self, images: list[Tensor], filters: Sequence[Tensor | None] = (None,)
    ) -> list[list[Detections]]:
        """The detections of `PartMaskRCNN.detect`; call it in eval mode."""
        batch, _ = self._prepare(images, None)
        features = self.backbone(batch.tensor)
        proposals, _ = self.proposal_generator(batch, features)
        allowed = [None if f is None else f[:, 1:].to(batch.tensor.device) for f in filters]
        results = self.roi_heads.detect(features, proposals, allowed, self.detections_per_part)
        return [
            [_record(d, image) for d, image in zip(detections, images, strict=True)]
            for detections in results
        ]

    def _prepare(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None
    ) -> tuple[ImageList, list[dict[str, Tensor]]]:
        """Normalised, resized and padded images with their targets at the same scale."""
        batch, resized = self.transform([self.normalisation(image) for image in images], targets)
        return ImageList(batch.tensors, batch.image_sizes), resized or []


def _norm(name: str) -> object:
    """What detectron2 takes for a normalisation; empty heads need its own SyncBN."""
    return {
        "": "",
        "BN": "BN",
        "SyncBN": lambda channels: NaiveSyncBatchNorm(channels, stats_mode="N"),
        "GN": lambda channels: nn.GroupNorm(math.gcd(32, channels), channels),
    }[name]


def _record(detections: Instances, image: Tensor) -> Detections:
    """The detections of one image at its own size, in the labels of the project."""
    results = detector_postprocess(detections, image.shape[-2], image.shape[-1])
    return {
        "boxes": results.pred_boxes.tensor,
        "labels": results.pred_classes + 1,
        "scores": results.scores,
        "masks": results.pred_masks.bool(),
    }
