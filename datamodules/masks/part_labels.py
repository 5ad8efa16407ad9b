"""Part labels of one image: the record that human annotations and pseudo labels share."""

from dataclasses import dataclass, replace

import numpy as np
from pycocotools import mask as coco_mask


@dataclass(frozen=True)
class PartInstance:
    """One part in one image.

    Attributes:
        part: part id of the vocabulary, 1..K.
        rle: binary mask of the image's size, COCO's compressed run lengths.
        box: `(x1, y1, x2, y2)` in pixels.
        score: confidence in [0, 1]; human annotations have 1.
    """

    part: int
    rle: bytes
    box: tuple[float, float, float, float]
    score: float = 1.0


@dataclass(frozen=True)
class ImageParts:
    """All parts of one image.

    Attributes:
        key: `object/file.JPEG`, the path below the split folder.
        label: object category, the position in the sorted folder names.
        height, width: size of the image in pixels; 0 when it could not be read.
        instances: the parts, in file order (human) or as the segmenter gave them.
        error: why the image has no labels, empty when all is well.
    """

    key: str
    label: int
    height: int
    width: int
    instances: tuple[PartInstance, ...] = ()
    error: str = ""

    def confident(self, min_score: float) -> "ImageParts":
        """The image with its instances of a score of at least `min_score`, in [0, 1], alone."""
        kept = tuple(one for one in self.instances if one.score >= min_score)
        return replace(self, instances=kept)


def encode_mask(mask: np.ndarray) -> bytes:
    """Compressed run lengths of a binary mask `(H, W)`."""
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]


def decode_masks(parts: ImageParts) -> np.ndarray:
    """Dense masks `(N, H, W)` uint8 in {0, 1} of an image's N instances."""
    if not parts.instances:
        return np.zeros((0, parts.height, parts.width), np.uint8)
    size = [parts.height, parts.width]
    masks = coco_mask.decode([{"size": size, "counts": part.rle} for part in parts.instances])
    return np.ascontiguousarray(masks.transpose(2, 0, 1))
