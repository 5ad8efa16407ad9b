"""The two engines of the part segmenter behind one constructor."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from datamodules.files.errors import UserError
from modules.networks.detector_settings import MaskDetectorSettings
from modules.networks.mask_rcnn import PartMaskRCNN
from modules.networks.timm_fpn import TimmFPN


def segmenter_network(
    engine: Literal["torchvision", "detectron2"],
    backbone: str,
    num_classes: int,
    settings: MaskDetectorSettings,
    *,
    pretrained: bool = False,
    weights: Path | None = None,
    grad_checkpointing: bool = False,
    frozen_stages: int = 0,
    backbone_args: Mapping[str, Any] | None = None,
) -> Any:
    """Builds a Mask R-CNN that has the methods of `PartMaskRCNN`.

    Args:
        engine: `torchvision`, or `detectron2`, which is imported only when asked for.
        backbone: name of the backbone, as the engine knows it.
        num_classes: K + 1, with the background as class 0.
        settings: sizes of the detector.
        pretrained: download the backbone's weights; torchvision engine only.
        weights: local file with the backbone's weights.
        grad_checkpointing: recompute the backbone's blocks in the backward pass.
        frozen_stages: so many first stages of the backbone are not trained; torchvision engine
            only.
        backbone_args: further arguments of the timm network; torchvision engine only.

    Raises:
        UserError: if detectron2 is asked for and not installed, or asked to download weights, to
            freeze stages or to take arguments of timm's.
    """
    if engine == "torchvision":
        pyramid = TimmFPN(
            backbone,
            settings.fpn_channels,
            pretrained,
            weights,
            settings.head_norm,
            grad_checkpointing,
            frozen_stages,
            backbone_args,
        )
        return PartMaskRCNN(pyramid, num_classes, settings)
    if pretrained:
        raise UserError(
            "engine 'detectron2' downloads no weights: set pretrained to false, weights to a file"
        )
    if frozen_stages:
        raise UserError("engine 'detectron2' freezes no stages: set frozen_stages to 0")
    if backbone_args:
        raise UserError("engine 'detectron2' has no networks of timm: set backbone_args to null")
    try:
        from modules.networks.mask_rcnn_detectron2 import Detectron2MaskRCNN
    except ImportError as error:
        raise UserError(
            f"engine 'detectron2' cannot be imported ({error}): install detectron2 as "
            "docs/detectron2.md says, or choose engine 'torchvision'"
        ) from None
    return Detectron2MaskRCNN(backbone, weights, num_classes, settings, grad_checkpointing)
