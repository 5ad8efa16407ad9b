"""Part instances of a network or a target, painted as the label files of stage 2 are painted."""

from collections.abc import Mapping

import numpy as np
from pycocotools import mask as coco_mask
from torch import Tensor

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.masks.part_labels import ImageParts, PartInstance
from datamodules.masks.part_masks import composite


def strong_detections(found: Mapping[str, Tensor], threshold: float) -> dict[str, Tensor]:
    """Detections that score at least `threshold`, on the CPU."""
    keep = found["scores"] >= threshold
    return {name: found[name][keep].cpu() for name in ("labels", "scores", "masks")}


def paint_parts(found: Mapping[str, Tensor], vocabulary: PartVocabulary) -> np.ndarray:
    """Composite label map `(H, W)` of part instances, as stage 3 makes it from labels.

    Args:
        found: `labels (N,)`, `masks (N, H, W)`, not 0 inside, and for detections `scores (N,)`.
        vocabulary: inclusion relations of the parts.
    """
    labels = found["labels"].tolist()
    scores = found["scores"].tolist() if "scores" in found else [1.0] * len(labels)
    dense = found["masks"].cpu().numpy()
    height, width = dense.shape[-2:]
    dense = (dense if dense.dtype == bool else dense != 0).view(np.uint8)
    runs = coco_mask.encode(np.asfortranarray(dense.transpose(1, 2, 0))) if labels else []
    instances = tuple(
        PartInstance(part, rle["counts"], (0.0, 0.0, 0.0, 0.0), score)  # no box needed
        for part, rle, score in zip(labels, runs, scores, strict=True)
    )
    return composite(ImageParts("", 0, height, width, instances), vocabulary.inclusions)
