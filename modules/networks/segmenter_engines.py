"""The two engines of the part segmenter behind one constructor."""

from pathlib import Path
from typing import Any, Literal

from datamodules.files.errors import UserError
from modules.networks.mask_rcnn import PartMaskRCNN
from modules.networks.timm_fpn import TimmFPN


def segmenter_network(
    engine: Literal["torchvision", "detectron2"],
    backbone: str,
    pretrained: bool,
    weights: Path | None,
    fpn_channels: int,
    grad_checkpointing: bool,
    **settings: Any,
) -> Any:
    """Builds a Mask R-CNN that has the methods of `PartMaskRCNN`.

    Args:
        engine: `torchvision`, or `detectron2`, which is imported only when asked for.
        backbone: name of the backbone, as the engine knows it.
        pretrained: download the backbone's weights; torchvision engine only.
        weights: local file with the backbone's weights.
        fpn_channels: channels of the feature pyramid.
        grad_checkpointing: recompute the backbone's blocks in the backward pass.
        **settings: the arguments of `PartMaskRCNN` after the backbone.

    Raises:
        UserError: if detectron2 is asked for and not installed, or asked to download weights.
    """
    if engine == "torchvision":
        norm = settings["head_norm"]
        pyramid = TimmFPN(backbone, fpn_channels, pretrained, weights, norm, grad_checkpointing)
        return PartMaskRCNN(pyramid, **settings)
    if pretrained:
        raise UserError(
            "engine 'detectron2' downloads no weights: set pretrained to false, weights to a file"
        )
    try:
        from modules.networks.mask_rcnn_detectron2 import Detectron2MaskRCNN
    except ImportError as error:
        raise UserError(
            f"engine 'detectron2' cannot be imported ({error}): install detectron2 as "
            "docs/detectron2.md says, or choose engine 'torchvision'"
        ) from None
    return Detectron2MaskRCNN(
        backbone,
        weights,
        fpn_channels=fpn_channels,
        grad_checkpointing=grad_checkpointing,
        **settings,
    )
