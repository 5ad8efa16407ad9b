"""Anchors on a feature pyramid, the same for all detectors."""

from collections.abc import Sequence

from torchvision.models.detection.anchor_utils import AnchorGenerator

ASPECT_RATIOS = (0.5, 1.0, 2.0)


def pyramid_anchors(sizes: Sequence[int]) -> AnchorGenerator:
    """Anchors of one size on each level, in three aspect ratios (Lin et al. 2017).

    Args:
        sizes: side of the anchors on each level, in pixels.
    """
    return AnchorGenerator(tuple((size,) for size in sizes), (ASPECT_RATIOS,) * len(sizes))
