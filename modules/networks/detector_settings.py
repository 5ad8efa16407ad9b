"""Settings that all detectors share: the part segmenter's two engines and the downstream one."""

from dataclasses import dataclass
from typing import Literal

HeadNorm = Literal["", "BN", "SyncBN", "GN"]
ClassLoss = Literal["softmax", "federated"]


@dataclass(frozen=True)
class DetectorSettings:
    """Sizes of a two-stage detector on a feature pyramid (Ren et al. 2015, Lin et al. 2017).

    Attributes:
        fpn_channels: channels of the feature pyramid.
        box_head_dim: width of the layers of the box head.
        min_size: the shorter side of an image is resized to this, in pixels ...
        max_size: ... unless the longer side would exceed this.
        anchor_sizes: side of the anchors on the five pyramid levels, in pixels.
        rpn_proposals: proposals kept of each image.
        rois_per_image: proposals sampled for the losses of each image.
        score_threshold: detections need a higher score, in [0, 1].
        detections_per_image: at most this many detections, the best ones.
    """

    fpn_channels: int = 256
    box_head_dim: int = 1024
    min_size: int = 800
    max_size: int = 1333
    anchor_sizes: tuple[int, int, int, int, int] = (32, 64, 128, 256, 512)
    rpn_proposals: int = 1000
    rois_per_image: int = 512
    score_threshold: float = 0.05
    detections_per_image: int = 100


@dataclass(frozen=True)
class MaskDetectorSettings(DetectorSettings):
    """Sizes of a Mask R-CNN (He et al. 2017) of thousands of classes.

    Attributes:
        mask_channels: channels of the convolutions of the mask head.
        roi_samples: points along each side of a bin of RoIAlign, in torchvision's engine; one is
            faster, and enough where most regions have hardly more pixels than bins.
        rpn_convs: 3x3 convolutions of the region proposal network.
        head_norm: normalisation in pyramid, box and mask head, "" for none; with one the box head
            is four convolutions and one layer (Wu and He 2018) instead of two layers.
        class_loss: `softmax` cross-entropy, or the `federated` sigmoid loss (Zhou et al. 2021),
            which weighs classes by the number of training images that show them.
        detections_per_part: under the category filter, at most this many detections for every
            part of the object (and never more than `detections_per_image`); None for no cap.
    """

    mask_channels: tuple[int, ...] = (256, 256, 256, 256)
    roi_samples: int = 2
    rpn_convs: int = 1
    head_norm: HeadNorm = ""
    class_loss: ClassLoss = "softmax"
    detections_per_part: int | None = None
