"""Test-time augmentation of the part segmenter by the mirrored image."""

import torch
from torch import Tensor
from torchvision.ops import batched_nms

# Detections of one part that overlap more than this are one, as in the box heads.
NMS_IOU = 0.5


def mirror(detections: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    """Detections of a mirrored image in the coordinates of the image itself, and vice versa.

    Args:
        detections: `boxes (N, 4)` as x1, y1, x2, y2 in pixels, `masks (N, H, W)` and more.
        width: width W of the image in pixels.
    """
    x1, y1, x2, y2 = detections["boxes"].unbind(-1)
    boxes = torch.stack((width - x2, y1, width - x1, y2), -1)
    return detections | {"boxes": boxes, "masks": detections["masks"].flip(-1)}


def merge_views(
    plain: dict[str, Tensor], mirrored: dict[str, Tensor], limit: int
) -> dict[str, Tensor]:
    """One set of detections of an image and of its mirror image.

    The union of both, the mirrored ones turned back, goes through non-maximum suppression within
    each part (IoU above 0.5): of a part that both views show the more confident detection
    stays, with its own box, mask and score; what one view alone shows stays too. Boxes of
    several views are merged this way in detectron2's `GeneralizedRCNNWithTTA` as well.

    Args:
        plain: detections of the image: `boxes (N, 4)`, `labels (N,)`, `scores (N,)`,
            `masks (N, H, W)`.
        mirrored: those of the mirror image, in its coordinates.
        limit: at most this many detections are kept, the most confident ones.

    Returns:
        The same entries, by falling score.
    """
    turned = mirror(mirrored, plain["masks"].shape[-1])
    both = {name: torch.cat((value, turned[name])) for name, value in plain.items()}
    keep = batched_nms(both["boxes"].float(), both["scores"].float(), both["labels"], NMS_IOU)
    return {name: value[keep[:limit]] for name, value in both.items()}
