"""A tiny untrained network, exported as stage 3 leaves one in its run folder."""

from pathlib import Path

import timm
import torch

from modules.networks.preprocessing import ImageFormat
from modules.weights.classifier_export import export_timm

MODEL_ARGS = {"channels": [8, 8, 16, 16]}


def export_tiny_classifier(folder: Path, num_classes: int, image_size: int = 16) -> Path:
    """Writes `export/` into a run folder and returns the folder; input is (pixels - 0.5) / 0.25."""
    torch.manual_seed(0)
    export_timm(
        timm.create_model("resnet10t", num_classes=num_classes, **MODEL_ARGS),
        folder / "export",
        architecture="resnet10t",
        model_args=MODEL_ARGS,
        num_classes=num_classes,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        images=ImageFormat(image_size),
    )
    return folder
