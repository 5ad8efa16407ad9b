"""A tiny Faster R-CNN and a batch for it."""

from typing import Any

import torch
from torch import Tensor

from modules.downstream_detector import DownstreamDetector
from modules.networks.detector_settings import DetectorSettings

MODEL_ARGS = {"act_layer": "gelu", "channels": [8, 8, 16, 16], "stem_width": 8}
SIZES: dict[str, Any] = {
    "architecture": "resnet18",
    "model_args": MODEL_ARGS,
    "detector": DetectorSettings(
        fpn_channels=16,
        box_head_dim=16,
        min_size=64,
        max_size=96,
        anchor_sizes=(8, 16, 32, 64, 128),
        rpn_proposals=50,
        rois_per_image=16,
    ),
}


def tiny_detector(**options: Any) -> DownstreamDetector:
    """Three classes and the background."""
    torch.manual_seed(0)
    return DownstreamDetector(**{"num_classes": 4, **SIZES, **options})


def tiny_batch() -> dict[str, list[Any]]:
    """Two images of different sizes, pixels in [0.1, 0.9]; the second has no boxes."""
    generator = torch.Generator().manual_seed(1)
    images = [
        0.1 + 0.8 * torch.rand(3, *size, generator=generator) for size in ((64, 64), (48, 80))
    ]
    boxes: list[Tensor] = [torch.tensor([[5.0, 5, 40, 40], [30, 20, 60, 60]]), torch.zeros(0, 4)]
    labels = [torch.tensor([1, 3]), torch.zeros(0, dtype=torch.int64)]
    target = [{"boxes": b, "labels": c} for b, c in zip(boxes, labels, strict=True)]
    truth = [t | {"iscrowd": torch.zeros(len(t["labels"]))} for t in target]
    return {"image": images, "target": target, "truth": truth, "key": ["a", "b"]}
