"""Images a second of stage 2: the category filter inside the segmenter against afterwards."""

import torch

from benchmarks.gpu_check.results import Ratio
from benchmarks.gpu_check.scale import Setting
from benchmarks.segmenter_variants import (
    OBJECT,
    build,
    detect_then_filter,
    filter_inside,
    pictures,
    torchvision_heads,
)
from benchmarks.side_by_side import median_seconds


@torch.no_grad()
def measure(setting: Setting) -> list[Ratio]:
    """One image after the other, under bfloat16 on a GPU as stage 2's recipe has it."""
    scale, device = setting.scale, setting.device
    network = build(scale.backbone, scale.part_classes, scale.detector)
    heads = torchvision_heads(network)
    network.to(device)
    allowed = torch.zeros(scale.part_classes, dtype=torch.bool, device=device)
    allowed[[0, *OBJECT]] = True
    images = [picture.to(device) for picture in pictures(*scale.pictures)]

    def after() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            for image in images:
                detect_then_filter(network, heads, image, allowed)

    def inside() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            for image in images:
                filter_inside(network, image, allowed)

    found = median_seconds({"after": after, "inside": inside}, scale.repetitions, device)
    rates = (len(images) / found["after"], len(images) / found["inside"])
    return [Ratio("stage 2", *rates, "images/s", "torchvision's heads, filtered afterwards")]
