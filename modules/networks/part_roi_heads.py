"""Box and mask heads of Mask R-CNN for thousands of part classes, on torchvision's engine."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import (
    RoIHeads,
    fastrcnn_loss,
    project_masks_on_boxes,
)
from torchvision.ops import boxes as box_ops

from modules.category_filter import filter_categories

Detections = dict[str, Tensor]
ImageSizes = list[tuple[int, int]]


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
        features = F.relu(self.upsample(features))
        weight = self.logits.weight[labels].flatten(1)
        logits = torch.einsum("nchw,nc->nhw", features, weight)
        return logits if self.logits.bias is None else logits + self.logits.bias[labels, None, None]


class PartRoIHeads(RoIHeads):
    """Box and mask heads with the category filter before non-maximum suppression."""

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
        loss_class, loss_box = fastrcnn_loss(logits, regression, labels, deltas)
        positive = [torch.where(classes > 0)[0] for classes in labels]
        boxes = [p[keep] for p, keep in zip(proposals, positive, strict=True)]
        mask_labels = [classes[keep] for classes, keep in zip(labels, positive, strict=True)]
        mask_logits = self.mask_logits(features, boxes, sizes, torch.cat(mask_labels))
        side = mask_logits.shape[-1]
        truth = [
            project_masks_on_boxes(target["masks"], box, match[keep], side)
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
        regions = self.mask_head(self.mask_roi_pool(features, boxes, sizes))
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
            `masks (N, 1, M, M)` probabilities, by falling score.
        """
        counts = [len(boxes) for boxes in proposals]
        logits, regression = self.box_predictor(
            self.box_head(self.box_roi_pool(features, proposals, sizes))
        )
        probabilities = logits.float().softmax(-1).split(counts)
        deltas = regression.float().unflatten(1, (-1, 4)).split(counts)
        found = []
        for allowed in filters:
            images = [
                self._select(
                    probabilities[i]
                    if allowed is None
                    else filter_categories(probabilities[i], allowed[i]),
                    deltas[i],
                    proposals[i],
                    sizes[i],
                )
                for i in range(len(proposals))
            ]
            labels = torch.cat([image["labels"] for image in images])
            boxes = [image["boxes"] for image in images]
            masks = self.mask_logits(features, boxes, sizes, labels).float().sigmoid()
            for image, mask in zip(images, masks.split([len(b) for b in boxes]), strict=True):
                image["masks"] = mask[:, None]
            found.append(images)
        return found

    def _select(
        self, probabilities: Tensor, deltas: Tensor, proposals: Tensor, size: tuple[int, int]
    ) -> Detections:
        """The `postprocess_detections` of torchvision, decoding only what the threshold leaves."""
        rows, labels = torch.where(probabilities[:, 1:] > self.score_thresh)
        labels = labels + 1
        scores = probabilities[rows, labels]
        boxes = self.box_coder.decode_single(deltas[rows, labels], proposals[rows])
        boxes = box_ops.clip_boxes_to_image(boxes, size)
        keep = box_ops.remove_small_boxes(boxes, min_size=1e-2)
        boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
        keep = box_ops.batched_nms(boxes, scores, labels, self.nms_thresh)
        keep = keep[: self.detections_per_img]
        return {"boxes": boxes[keep], "scores": scores[keep], "labels": labels[keep]}
