"""The two variants that `segmenter_inference.py` compares: one network, two ways to filter."""

from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.transform import resize_boxes

from modules.networks import mask_geometry
from modules.networks.detector_settings import MaskDetectorSettings
from modules.networks.mask_rcnn import PartMaskRCNN
from modules.networks.timm_fpn import TimmFPN

OBJECT = [100, 101, 102, 103, 104, 105]  # the six parts of the object that the images show
OTHER = [200, 201, 202, 203, 204, 205]  # parts of another object
Detections = dict[str, Tensor]


SIZES = MaskDetectorSettings(min_size=375, max_size=500, anchor_sizes=(16, 32, 64, 128, 256))


def build(backbone: str, classes: int, sizes: MaskDetectorSettings = SIZES) -> PartMaskRCNN:
    """A network whose detections are the six parts, in every image."""
    torch.manual_seed(0)
    network = PartMaskRCNN(TimmFPN(backbone, sizes.fpn_channels), classes, sizes).eval()
    favour(network, OBJECT)
    return network


def favour(network: PartMaskRCNN, classes: list[int]) -> None:
    """Makes some classes likely and all others negligible; the other object's score as high."""
    scores: Any = network.roi_heads.box_predictor.cls_score
    with torch.no_grad():
        scores.weight[OTHER] = scores.weight[OBJECT]
        scores.bias.zero_()
        scores.bias[classes] = 8.0


def torchvision_heads(network: PartMaskRCNN) -> RoIHeads:
    """The heads of torchvision on the same weights."""
    ours: Any = network.roi_heads
    masks = MaskRCNNPredictor(1, 1, 1)
    masks.conv5_mask = ours.mask_predictor.upsample
    masks.mask_fcn_logits = ours.mask_predictor.logits
    return RoIHeads(
        ours.box_roi_pool, ours.box_head, ours.box_predictor,
        0.5, 0.5, 512, 0.25, None,
        ours.score_thresh, ours.nms_thresh, ours.detections_per_img,
        ours.mask_roi_pool, ours.mask_head, masks,
    ).eval()  # fmt: skip


def detect_then_filter(
    network: PartMaskRCNN, heads: RoIHeads, image: Tensor, allowed: Tensor
) -> Detections:
    """Detections of all classes by torchvision, of which the allowed ones are kept."""
    network.rpn._post_nms_top_n["testing"] = 1000
    batch, _ = network.transform([network.backbone.normalisation(image)])
    features = network.backbone(batch.tensors)
    proposals, _ = network.rpn(batch, features)
    (found,), _ = heads(features, proposals, batch.image_sizes)
    kept = allowed[found["labels"]]
    result = {name: value[kept] for name, value in found.items()}
    size = image.shape[-2], image.shape[-1]
    boxes = resize_boxes(result["boxes"], batch.image_sizes[0], size)
    masks = mask_geometry.paste_masks(result["masks"][:, 0], boxes, size)
    return result | {"boxes": boxes, "masks": masks}


def filter_inside(
    network: PartMaskRCNN,
    image: Tensor,
    allowed: Tensor,
    per_part: int | None = None,
    regions: int = 1000,
) -> Detections:
    """The project's own detections of the allowed classes, among the best `regions` proposals."""
    network.roi_heads.detections_per_part = per_part
    network.rpn._post_nms_top_n["testing"] = regions
    return network.detect([image], [allowed[None]])[0][0]


def pictures(count: int, height: int = 375, width: int = 500) -> list[Tensor]:
    """Smooth random images."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, 12, 16, generator=generator)
    return list(
        torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    )
