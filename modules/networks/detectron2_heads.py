"""Box and mask heads for thousands of part classes, on detectron2's engine."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import (
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
    StandardROIHeads,
)
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_loss
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = ["p2", "p3", "p4", "p5"]
FEDERATED_CLASSES = 50  # compared in a step, the value for LVIS (Zhou et al. 2021)
MOST_CANDIDATES = 10_000  # boxes of an image that enter non-maximum suppression, the best ones
PRIOR = 0.01  # probability of every class at the start of training with sigmoid scores


class ClassMaskHead(MaskRCNNConvUpsampleHead):
    """detectron2's mask head that computes the mask of one given class per region.

    The weights are the usual ones, but of the K output channels only the wanted one is computed,
    in training and in inference: with 3,308 parts the others cost gigabytes.
    """

    def forward(self, x: Tensor, instances: list[Instances]) -> dict[str, Tensor]:
        """Mask loss of regions `(N, C, h, w)` that were sampled as foreground."""
        labels = [image.gt_classes for image in instances if len(image)]
        logits = self.class_logits(x, cat(labels) if labels else x.new_zeros(0).long())
        # One channel is the case without classes of the library's loss.
        return {"loss_mask": mask_rcnn_loss(logits[:, None], instances) * self.loss_weight}

    def class_logits(self, x: Tensor, labels: Tensor) -> Tensor:
        """Logits `(N, 2h, 2w)` of regions `(N, C, h, w)` for the classes `labels (N,)`."""
        for layer in list(self.children())[:-1]:
            x = layer(x)
        weight = self.predictor.weight[labels].flatten(1)
        logits = torch.einsum("nchw,nc->nhw", x, weight.to(x.dtype))
        return logits + self.predictor.bias[labels, None, None]


class PartROIHeads(StandardROIHeads):
    """detectron2's box and mask heads with the category filter before decoding.

    Labels are those of detectron2 here: 0..K-1, and K is the background.
    """

    def detect(
        self,
        features: dict[str, Tensor],
        proposals: list[Instances],
        filters: Sequence[Tensor | None],
        detections_per_part: int | None,
    ) -> list[list[Instances]]:
        """Detections under each filter; region features and classes are computed once.

        Args:
            features: pyramid levels.
            proposals: those of each image.
            filters: bool `(B, K)`, the parts allowed in each image, or None for all.
            detections_per_part: under a filter an image keeps at most this many for each
                allowed part; None keeps as many as without.

        Returns:
            For each filter and image `pred_boxes (N, 4)`, `pred_classes (N,)`, `scores (N,)` of
            the full distribution and `pred_masks (N, 1, M, M)` in [0, 1], by falling score.
        """
        counts = [len(image) for image in proposals]
        levels = [features[name] for name in self.box_in_features]
        regions = self.box_head(self.box_pooler(levels, [p.proposal_boxes for p in proposals]))
        logits = self.box_predictor.cls_score(regions).float()
        scores = self.box_predictor.predict_probs((logits, None), proposals)
        results = []
        for allowed in filters:
            images = [
                self._select(values, rows, image, None if allowed is None else allowed[i],
                             detections_per_part)
                for i, (values, rows, image) in enumerate(
                    zip(scores, regions.split(counts), proposals, strict=True)
                )
            ]  # fmt: skip
            self._add_masks(features, images)
            results.append(images)
        return results

    def _select(
        self,
        scores: Tensor,
        regions: Tensor,
        proposals: Instances,
        allowed: Tensor | None,
        detections_per_part: int | None,
    ) -> Instances:
        """Boxes of one image, decoded for allowed classes that reach the threshold anywhere."""
        predictor = self.box_predictor
        limit = predictor.test_topk_per_image
        parts = torch.arange(scores.shape[1] - 1, device=scores.device)
        if allowed is not None:
            parts = allowed.nonzero()[:, 0]
            if detections_per_part is not None:
                limit = min(limit, detections_per_part * len(parts))
        threshold = _threshold(scores[:, parts], predictor.test_score_thresh)
        classes = parts[(scores[:, parts] > threshold).any(dim=0)]
        if len(classes) == 0:
            return Instances(
                proposals.image_size,
                pred_boxes=Boxes(scores.new_zeros(0, 4)),
                scores=scores.new_zeros(0),
                pred_classes=classes,
            )
        weight = predictor.bbox_pred.weight.unflatten(0, (-1, 4))[classes].flatten(0, 1)
        bias = predictor.bbox_pred.bias.unflatten(0, (-1, 4))[classes].flatten()
        deltas = F.linear(regions, weight, bias).float()
        boxes = predictor.box2box_transform.apply_deltas(deltas, proposals.proposal_boxes.tensor)
        kept, _ = fast_rcnn_inference_single_image(
            boxes,
            torch.cat([scores[:, classes], scores[:, -1:]], dim=1),
            proposals.image_size,
            threshold,
            predictor.test_nms_thresh,
            limit,
        )
        kept.pred_classes = classes[kept.pred_classes]
        return kept

    def _add_masks(self, features: dict[str, Tensor], images: list[Instances]) -> None:
        """Gives the detections of all images `pred_masks`, each for its own class."""
        levels = [features[name] for name in self.mask_in_features]
        regions = self.mask_pooler(levels, [image.pred_boxes for image in images])
        labels = torch.cat([image.pred_classes for image in images])
        masks = self.mask_head.class_logits(regions, labels).float().sigmoid()
        for image, mask in zip(images, masks.split([len(i) for i in images]), strict=True):
            image.pred_masks = mask[:, None]


def _threshold(scores: Tensor, threshold: float) -> float:
    """Raises the threshold where more than `MOST_CANDIDATES` scores `(P, C)` reach it.

    Sigmoid scores of thousands of classes that are hardly trained yet all lie above a low
    threshold: millions of boxes.
    """
    candidates = scores[scores > threshold]
    if len(candidates) <= MOST_CANDIDATES:
        return threshold
    return float(candidates.topk(MOST_CANDIDATES + 1).values[-1])


def build_roi_heads(
    channels: int,
    num_parts: int,
    strides: Sequence[int],
    *,
    mask_channels: Sequence[int],
    box_head_dim: int,
    rois_per_image: int,
    norm: Any,
    federated: bool,
    score_threshold: float,
    detections_per_image: int,
) -> PartROIHeads:
    """Box and mask heads on an FPN, from detectron2's modules.

    Args:
        channels: channels of the pyramid levels p2 to p5.
        num_parts: K, without the background.
        strides: pixels of the image per cell of each level.
        mask_channels: channels of the convolutions of the mask head.
        box_head_dim: width of the layers of the box head.
        rois_per_image: proposals sampled for the losses of each image.
        norm: normalisation as detectron2 takes it, "" for none; with one the box head has four
            convolutions and one layer instead of two layers.
        federated: sigmoid scores and federated loss instead of soft-max.
        score_threshold: detections need a higher score, in [0, 1].
        detections_per_image: at most this many detections, the best ones.
    """
    predictor = FastRCNNOutputLayers(
        ShapeSpec(channels=box_head_dim),
        box2box_transform=Box2BoxTransform(weights=(10, 10, 5, 5)),
        num_classes=num_parts,
        test_score_thresh=score_threshold,
        test_nms_thresh=0.5,
        test_topk_per_image=detections_per_image,
        use_sigmoid_ce=federated,
        use_fed_loss=federated,
        get_fed_loss_cls_weights=lambda: torch.ones(num_parts),
        fed_loss_num_classes=min(FEDERATED_CLASSES, num_parts),
    )
    if federated:
        # Nearly all of a sigmoid's answers are no: start there (Lin et al. 2017, §4.1).
        nn.init.constant_(predictor.cls_score.bias, -math.log((1 - PRIOR) / PRIOR))
    return PartROIHeads(
        num_classes=num_parts,
        batch_size_per_image=rois_per_image,
        positive_fraction=0.25,
        proposal_matcher=Matcher([0.5], [0, 1], allow_low_quality_matches=False),
        box_in_features=LEVELS,
        box_pooler=_pooler(7, strides),
        box_head=FastRCNNConvFCHead(
            ShapeSpec(channels=channels, height=7, width=7),
            conv_dims=[channels] * 4 if norm else [],
            fc_dims=[box_head_dim] if norm else [box_head_dim] * 2,
            conv_norm=norm,
        ),
        box_predictor=predictor,
        mask_in_features=LEVELS,
        mask_pooler=_pooler(14, strides),
        mask_head=ClassMaskHead(
            ShapeSpec(channels=channels, height=14, width=14),
            num_classes=num_parts,
            conv_dims=[*mask_channels, mask_channels[-1]],
            conv_norm=norm,
        ),
    )


def _pooler(side: int, strides: Sequence[int]) -> ROIPooler:
    scales = [1 / stride for stride in strides]
    return ROIPooler(side, scales=scales, sampling_ratio=0, pooler_type="ROIAlignV2")
