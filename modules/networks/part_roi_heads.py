"""Box and mask heads of Mask R-CNN for thousands of part classes, on torchvision's engine."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.ops import boxes as box_ops

from modules.losses.federated import federated_loss
from modules.networks.mask_geometry import mask_targets

Detections = dict[str, Tensor]
ImageSizes = list[tuple[int, int]]

MOST_CANDIDATES = 10_000  # boxes of an image that enter non-maximum suppression, the best ones
REGIONS_AT_ONCE = 256  # pooled together in detection: 13 MB, which allocators keep and use again
PRIOR = 0.01  # probability of every class at the start of training with sigmoid scores


class ClassMaskPredictor(nn.Module):
    """Mask logits of one given class per region.

    The weights are those of the usual predictor (He et al. 2017, fig. 4), but of its K + 1
    output channels only the wanted one is computed: with 3,308 parts the others cost gigabytes.

    Args:
        in_channels: channels of the region features.
        channels: channels after the upsampling.
        num_classes: K + 1.
    """

    def __init__(self, in_channels: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(in_channels, channels, 2, 2)
        self.logits = nn.Conv2d(channels, num_classes, 1)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Logits `(N, 2h, 2w)` of features `(N, C, h, w)` for the classes `labels (N,)`."""
        features = F.relu(self.upsample(features), inplace=True)
        weight = self.logits.weight[labels].flatten(1)
        logits = torch.einsum("nchw,nc->nhw", features, weight)
        return logits if self.logits.bias is None else logits + self.logits.bias[labels, None, None]


class PartRoIHeads(RoIHeads):
    """Box and mask heads with the category filter before non-maximum suppression.

    Under a filter only the scores are computed for all classes, as they are those of the full
    distribution; boxes and masks are computed for the allowed classes alone.

    Args:
        *args: those of torchvision's `RoIHeads`.
        class_loss: `softmax` or `federated`; the latter has sigmoid scores, class 0 unused.
        detections_per_part: under a filter, at most this many detections for every allowed part.

    Attributes:
        class_counts: number of training images with each class `(K + 1,)`; ones at first.
    """

    class_counts: Tensor

    def __init__(
        self,
        *args: Any,
        class_loss: Literal["softmax", "federated"] = "softmax",
        detections_per_part: int | None = None,
    ) -> None:
        super().__init__(*args)
        self.class_loss = class_loss
        self.detections_per_part = detections_per_part
        scores: Any = self.box_predictor.cls_score
        self.register_buffer("class_counts", torch.ones(scores.out_features), persistent=False)
        if class_loss == "federated":
            # Nearly all of a sigmoid's answers are no: start there (Lin et al. 2017, §4.1).
            nn.init.normal_(scores.weight, std=0.01)
            nn.init.constant_(scores.bias, -math.log((1 - PRIOR) / PRIOR))

    def losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        sizes: ImageSizes,
        targets: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Classification, box and mask loss of sampled proposals.

        Args:
            features: pyramid levels.
            proposals: boxes `(P, 4)` of each image.
            sizes: (height, width) of each image before padding.
            targets: `boxes (N, 4)`, `labels (N,)`, `masks (N, H, W)` of each image; N may be 0.
        """
        proposals, matches, labels, deltas = self.select_training_samples(proposals, targets)
        logits, regression = self.box_predictor(
            self.box_head(self.box_roi_pool(features, proposals, sizes))
        )
        loss_class, loss_box = fastrcnn_loss(logits.float(), regression.float(), labels, deltas)
        if self.class_loss == "federated":
            loss_class = federated_loss(logits, torch.cat(labels), self.class_counts)
        positive = [torch.where(classes > 0)[0] for classes in labels]
        boxes = [p[keep] for p, keep in zip(proposals, positive, strict=True)]
        mask_labels = [classes[keep] for classes, keep in zip(labels, positive, strict=True)]
        mask_logits = self.mask_logits(features, boxes, sizes, torch.cat(mask_labels))
        side = mask_logits.shape[-1]
        truth = [
            mask_targets(target["masks"], box, match[keep], side)
            for target, box, match, keep in zip(targets, boxes, matches, positive, strict=True)
        ]
        if len(mask_logits):
            loss_mask = F.binary_cross_entropy_with_logits(mask_logits.float(), torch.cat(truth))
        else:
            loss_mask = mask_logits.sum() * 0  # keeps the parameters in the graph for DDP
        return {"loss_class": loss_class, "loss_box": loss_box, "loss_mask": loss_mask}

    def mask_logits(
        self, features: dict[str, Tensor], boxes: list[Tensor], sizes: ImageSizes, labels: Tensor
    ) -> Tensor:
        """Mask logits `(N, M, M)` of all images' N boxes, each for its own class."""
        regions = self.mask_roi_pool(features, boxes, sizes)
        if not self.training:  # a fifth faster on CPUs
            regions = regions.contiguous(memory_format=torch.channels_last)
        regions = self.mask_head(regions)
        return self.mask_predictor(regions, labels)

    def detect(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        sizes: ImageSizes,
        filters: Sequence[Tensor | None],
    ) -> list[list[Detections]]:
        """Detections under each filter; region features and classes are computed once.

        Args:
            features: pyramid levels.
            proposals: boxes `(P, 4)` of each image.
            sizes: (height, width) of each image before padding.
            filters: bool `(B, K + 1)`, the parts allowed in each image, or None for all.

        Returns:
            For each filter and image `boxes (N, 4)`, `labels (N,)`, `scores (N,)`,
            `masks (N, M, M)` probabilities, by falling score.
        """
        counts = [len(boxes) for boxes in proposals]
        regions = self.region_features(features, proposals, sizes)
        probabilities = self.probabilities(regions).split(counts)
        regions = regions.split(counts)
        results = []
        for allowed in filters:
            images = [
                self.select(
                    probabilities[i],
                    regions[i],
                    proposals[i],
                    sizes[i],
                    None if allowed is None else allowed[i],
                )
                for i in range(len(proposals))
            ]
            labels = torch.cat([image["labels"] for image in images])
            boxes = [image["boxes"] for image in images]
            masks = self.mask_logits(features, boxes, sizes, labels).float().sigmoid()
            for image, mask in zip(images, masks.split([len(b) for b in boxes]), strict=True):
                image["masks"] = mask
            results.append(images)
        return results

    def region_features(
        self, features: dict[str, Tensor], proposals: list[Tensor], sizes: ImageSizes
    ) -> Tensor:
        """Box features `(R, D)` of all images' R proposals, a few proposals at a time."""
        step = max(1, REGIONS_AT_ONCE // len(proposals))
        results: list[list[Tensor]] = [[] for _ in proposals]
        # Once at least: images without a single proposal have features of none, not no features.
        for start in range(0, max(1, *map(len, proposals)), step):
            some = [boxes[start : start + step] for boxes in proposals]
            regions = self.box_head(self.box_roi_pool(features, some, sizes))
            for image, part in zip(results, regions.split([len(b) for b in some]), strict=True):
                image.append(part)
        return torch.cat([part for image in results for part in image])

    def probabilities(self, regions: Tensor) -> Tensor:
        """Scores `(R, K + 1)` of region features `(R, D)` over all classes, float32."""
        scores: Any = self.box_predictor.cls_score
        logits = scores(regions).float()
        return logits.sigmoid() if self.class_loss == "federated" else logits.softmax(-1)

    def select(
        self,
        probabilities: Tensor,
        regions: Tensor,
        proposals: Tensor,
        size: tuple[int, int],
        allowed: Tensor | None,
    ) -> Detections:
        """The best boxes of one image after non-maximum suppression in each class.

        The `postprocess_detections` of torchvision, but only what the filter and the score
        threshold leave is regressed and decoded.

        Args:
            probabilities: `(P, K + 1)` of the full distribution.
            regions: features `(P, D)`.
            proposals: boxes `(P, 4)`.
            size: (height, width) of the image.
            allowed: bool `(K + 1,)`, or None for all classes.
        """
        limit = self.detections_per_img
        classes = torch.arange(1, probabilities.shape[1], device=probabilities.device)
        if allowed is not None:
            classes = torch.where(allowed[1:])[0] + 1
            if self.detections_per_part is not None:
                limit = min(limit, self.detections_per_part * len(classes))
        rows, columns = torch.where(probabilities[:, classes] > self.score_thresh)
        if len(rows) > MOST_CANDIDATES:  # hardly trained sigmoids all lie above a low threshold
            best = probabilities[rows, classes[columns]].topk(MOST_CANDIDATES).indices
            rows, columns = rows[best], columns[best]
        labels = classes[columns]
        scores = probabilities[rows, labels]
        boxes = self.box_coder.decode_single(
            self.box_deltas(regions, rows, labels), proposals[rows]
        )
        boxes = box_ops.clip_boxes_to_image(boxes, size)
        keep = box_ops.remove_small_boxes(boxes, min_size=1e-2)
        boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
        # Small class numbers: the suppression moves boxes apart by them, and thousands times the
        # side of an image leaves float32 only eighths of a pixel.
        dense = labels.unique(return_inverse=True)[1]
        keep = box_ops.batched_nms(boxes, scores, dense, self.nms_thresh)[:limit]
        return {"boxes": boxes[keep], "scores": scores[keep], "labels": labels[keep]}

    def box_deltas(self, regions: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        """Box regression `(N, 4)` of the regions `rows (N,)` for the classes `labels (N,)`."""
        layer: Any = self.box_predictor.bbox_pred
        used_rows, row = rows.unique(return_inverse=True)
        used, column = labels.unique(return_inverse=True)
        weight = layer.weight.unflatten(0, (-1, 4))[used].flatten(0, 1)
        bias = layer.bias.unflatten(0, (-1, 4))[used].flatten()
        deltas = F.linear(regions[used_rows], weight, bias).float().unflatten(1, (-1, 4))
        return deltas[row, column]
