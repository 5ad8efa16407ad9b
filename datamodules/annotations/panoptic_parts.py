"""Reader of Cityscapes Panoptic Parts (Meletis et al. 2020), one TIFF of ids an image.

A pixel has a semantic id s (at most 99), an instance id i (three digits) and a part id p (two
digits), written s, `s i` or `s i p`: 26, 26003 or 2600305. The shorter forms have no instance or
no part; part 0 means none as well.
"""

from pathlib import Path

import numpy as np
from scipy.ndimage import find_objects

from datamodules.annotations.object_parts import AnnotatedObject, Box
from datamodules.files.errors import UserError
from datamodules.images.image_files import opened_image

HUMAN_PARTS = ("torso", "head", "arms", "legs")
VEHICLE_PARTS = ("windows", "wheels", "lights", "license plate", "chassis")
THINGS: dict[int, tuple[str, tuple[str, ...]]] = {
    24: ("person", HUMAN_PARTS),
    25: ("rider", HUMAN_PARTS),
    26: ("car", VEHICLE_PARTS),
    27: ("truck", VEHICLE_PARTS),
    28: ("bus", VEHICLE_PARTS),
    29: ("caravan", ()),
    30: ("trailer", ()),
    31: ("train", ()),
    32: ("motorcycle", ()),
    33: ("bicycle", ()),
}
"""Name and parts, from part id 1 on, of Cityscapes' categories that have instances."""
CITYSCAPES_CLASSES = frozenset(name for name, _ in THINGS.values())
_SEMANTIC_ONLY, _NO_PART, _MOST = 100, 100_000, 10_000_000  # ids below these, by their digits


def split_ids(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Takes ids of one to seven digits apart.

    Args:
        ids: int `(H, W)`.

    Returns:
        `1000 s + i` of pixels with an instance, otherwise 0; and p, 0 where there is none.

    Raises:
        UserError: if a number is no such id.
    """
    wrong = (ids < 0) | (ids >= _MOST) | ((ids >= _SEMANTIC_ONLY) & (ids < 1000))
    if wrong.any():
        raise UserError(f"{ids[wrong][0]} is no id of semantics, instance and part")
    has_part = ids >= _NO_PART
    instances = np.where(has_part, ids // 100, np.where(ids >= _SEMANTIC_ONLY, ids, 0))
    return instances, np.where(has_part, ids % 100, 0)


def read_panoptic_parts(file: Path, height: int, width: int) -> list[AnnotatedObject]:
    """Reads `<image>_gtFinePanopticParts.tif`.

    Args:
        file: integers, one a pixel.
        height: of the image in pixels.
        width: the same.

    Returns:
        The instances of all categories that have some, numbered `1000 s + i`, and what those
        categories cover without an instance, such as a crowd, numbered s.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if it cannot be decoded, has another size, or holds an unknown id.
    """
    with opened_image(file) as image:
        image.load()  # NumPy would take an AttributeError in there for "no array"
        ids = np.asarray(image)
    if ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise UserError(f"{file} holds {ids.dtype} {ids.shape}, not one integer a pixel")
    if ids.shape != (height, width):
        raise UserError(
            f"{file} is {ids.shape[0]}x{ids.shape[1]}, its image {height}x{width} (height x "
            "width): take the images that the annotations were made for"
        )
    if ids.dtype.kind == "u":
        ids = ids.astype(np.int64)
    try:
        instances, parts = split_ids(ids)
        found = [_instance(number, box, instances, parts) for number, box in _boxes(instances)]
    except UserError as error:
        raise UserError(f"{file}: {error}: is it of Cityscapes Panoptic Parts?") from None
    crowds = np.where(np.isin(ids, list(THINGS)), ids, 0)
    found += [
        AnnotatedObject(THINGS[number][0], number, box, crowds[box.slices] == number, (), False)
        for number, box in _boxes(crowds)
    ]
    return found


def _boxes(numbers: np.ndarray) -> list[tuple[int, Box]]:
    """Every positive number and the box around its pixels."""
    boxes = enumerate(find_objects(numbers), start=1)
    return [
        (number, Box(box[1].start, box[0].start, box[1].stop, box[0].stop))
        for number, box in boxes
        if box is not None
    ]


def _instance(number: int, box: Box, instances: np.ndarray, parts: np.ndarray) -> AnnotatedObject:
    if number // 1000 not in THINGS:
        raise UserError(f"instance {number} is of no category that has instances")
    name, part_names = THINGS[number // 1000]
    mask = instances[box.slices] == number
    part_ids = np.where(mask, parts[box.slices], 0)
    masks = []
    for part in np.unique(part_ids[part_ids > 0]).tolist():
        if part > len(part_names):
            raise UserError(f"instance {number} has part {part}, but a {name} no such part")
        masks.append((part_names[part - 1], part_ids == part))
    return AnnotatedObject(name, number, box, mask, tuple(masks))
