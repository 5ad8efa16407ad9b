"""The segmenter's heads against float64 on the CPU, and its filter against filtering afterwards."""

import copy

import torch
from torch import Tensor

from benchmarks.gpu_check.exact import deviation
from benchmarks.gpu_check.results import Check
from benchmarks.gpu_check.scale import Setting
from benchmarks.segmenter_variants import (
    OBJECT,
    build,
    detect_then_filter,
    filter_inside,
    pictures,
    torchvision_heads,
)
from modules.networks.mask_rcnn import PartMaskRCNN

REGIONS = 32


@torch.no_grad()
def check(setting: Setting) -> list[Check]:
    """On given regions, as which proposals survive hangs on the last bit of a score."""
    scale = setting.scale
    network = build(scale.backbone, scale.part_classes, scale.detector)
    (picture,) = pictures(1, *scale.pictures[1:])
    wanted = _answers(copy.deepcopy(network).double(), picture.double())
    network.to(setting.device)
    found = _answers(network, picture.to(setting.device))
    against = "float64, CPU"
    allowed = torch.zeros(scale.part_classes, dtype=torch.bool, device=setting.device)
    allowed[[0, *OBJECT]] = True
    image = picture.to(setting.device)
    inside = filter_inside(network, image, allowed)
    after = detect_then_filter(network, torchvision_heads(network), image, allowed)
    missing = 1.0
    if len(after["labels"]) == len(inside["labels"]) > 0:
        missing = (after["labels"].sort()[0] != inside["labels"].sort()[0]).double().mean().item()
    return [
        *(
            Check(f"detector: {name}", deviation([found[name]], [wanted[name]]), 1e-4, against)
            for name in wanted
        ),
        Check("detector: labels that the filter changes", missing, 0.02, "torchvision's heads"),
    ]


def _answers(network: PartMaskRCNN, image: Tensor) -> dict[str, Tensor]:
    """Objectness of the finest level, scores, boxes and masks of given regions."""
    batch, _ = network.transform([network.backbone.normalisation(image)])
    features = network.backbone(batch.tensors)
    generator = torch.Generator().manual_seed(4)
    height, width = batch.image_sizes[0]
    corners = torch.rand(REGIONS, 2, generator=generator) * torch.tensor([width, height]) / 2
    sides = (0.1 + 0.4 * torch.rand(REGIONS, 2, generator=generator)) * torch.tensor(
        [width, height]
    )
    boxes = [torch.cat([corners, corners + sides], 1).to(image)]
    labels = torch.tensor(OBJECT).repeat(REGIONS)[:REGIONS].to(image.device)
    heads = network.roi_heads
    regions = heads.region_features(features, boxes, batch.image_sizes)
    scores, deltas = heads.box_predictor(regions)
    return {
        "objectness": network.rpn.head(list(features.values()))[0][0],
        "scores": scores,
        "boxes": deltas,
        "masks": heads.mask_logits(features, boxes, batch.image_sizes, labels),
    }
