"""Part labels as 16-bit PNG label maps, in the layout of the authors' training code.

`seg/<object>/<stem>.png` holds part ids (0 = background), `whether_pseudo/<object>.txt` says of
each image whether its map is a pseudo label (1) or a human annotation (0).
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from datamodules.files.errors import UserError
from datamodules.images.image_files import opened_image
from datamodules.masks.part_labels import ImageParts, PartInstance, encode_mask

MODES = ("I;16", "I", "L", "P")


def png_path(folder: Path, key: str) -> Path:
    """Label map of the image `key` (`object/file.JPEG`): its name up to the first dot."""
    name, _, file = key.rpartition("/")
    return folder / "seg" / name / f"{file.split('.')[0]}.png"


def write_png(path: Path, labels: np.ndarray) -> None:
    """Writes part ids `(H, W)` as a 16-bit grey PNG.

    Raises:
        UserError: if an id does not fit 16 bits.
    """
    if labels.max(initial=0) > np.iinfo(np.uint16).max:
        raise UserError(f"{path}: part id {labels.max()} does not fit a 16-bit PNG, use COCO")
    Image.fromarray(labels.astype(np.uint16)).save(path, "PNG")


def read_png(path: Path) -> np.ndarray:
    """Part ids `(H, W)` int32 of a grey or palette PNG of 8 or 16 bits.

    Raises:
        UserError: if the file is not that; the message names it.
    """
    with opened_image(path) as image:
        image.load()  # NumPy would take an AttributeError in there for "no array"
        mode, labels = image.mode, np.asarray(image)
    if mode not in MODES:
        raise UserError(f"{path} has mode {mode}: a label map is a grey PNG of 8 or 16 bits")
    return labels.astype(np.int32)


def from_label_map(
    key: str, label: int, labels: np.ndarray, known: Collection[int], path: Path
) -> ImageParts:
    """Instances of a label map: one per part id.

    A map does not say which pixels are one instance, and connected components would cut a part
    that something covers in the middle, so all pixels of a part are one.

    Args:
        key: of the image.
        label: its object category.
        labels: part ids `(H, W)`, 0 = background.
        known: part ids that may occur.
        path: file of the map, for the message.

    Raises:
        UserError: if another part id occurs.
    """
    instances = []
    for part in np.unique(labels[labels != 0]).tolist():
        if part not in known:
            raise UserError(
                f"{path} has part id {part}, which is no part of {key.split('/')[0]} in this "
                "vocabulary: number the parts as vocabulary.json of a run does, from 1"
            )
        rle = encode_mask(labels == part)
        box = coco_mask.toBbox({"size": list(labels.shape), "counts": rle})
        x, y, width, height = (float(value) for value in box)
        instances.append(PartInstance(part, rle, (x, y, x + width, y + height)))
    height, width = labels.shape
    return ImageParts(key, label, height, width, tuple(instances))
