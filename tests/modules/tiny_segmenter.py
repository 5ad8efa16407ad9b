"""A tiny untrained part segmenter, saved as stage 1 leaves one in its run folder."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules.networks.detector_settings import MaskDetectorSettings
from modules.part_segmenter import PartSegmenter

SIZES = MaskDetectorSettings(
    fpn_channels=16,
    mask_channels=(16,),
    box_head_dim=16,
    min_size=64,
    max_size=64,
    anchor_sizes=(8, 16, 32, 48, 64),
)


def tiny_segmenter(object_parts: Tensor, **settings: Any) -> PartSegmenter:
    """A segmenter of `SIZES`; settings of the detector are given with those of the module."""
    names = [field.name for field in fields(SIZES) if field.name in settings]
    detector = replace(SIZES, **{name: settings.pop(name) for name in names})
    return PartSegmenter(object_parts, "test_resnet", detector=detector, **settings)


def save_tiny_segmenter(
    run: Path,
    object_parts: Tensor,
    *,
    seed: int = 0,
    more_entries: dict[str, object] | None = None,
    **settings: Any,
) -> None:
    """Writes `checkpoints/best.ckpt`; `more_entries` go beside the network's hyper-parameters."""
    torch.manual_seed(seed)
    network = tiny_segmenter(object_parts, **settings)
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    hyper_parameters = dict(network.hparams) | (more_entries or {})
    content = {"state_dict": network.state_dict(), "hyper_parameters": hyper_parameters}
    torch.save(content, run / "checkpoints" / "best.ckpt")
