"""Where the annotated object of an image lies, as far as its part masks tell."""

import math

from datamodules.annotations.object_parts import Box
from datamodules.masks.part_labels import ImageParts


def object_box(parts: ImageParts) -> Box | None:
    """The smallest box around all part masks of an image.

    PartImageNet++ annotates one object an image and no box of its own, so what no part covers is
    outside.

    Args:
        parts: annotations of the image.

    Returns:
        The box in whole pixels within the image; None where no mask has a pixel.
    """
    boxes = [one.box for one in parts.instances if one.box[2] > one.box[0]]
    if not boxes:
        return None
    left, top, right, bottom = zip(*boxes, strict=True)
    box = Box(
        math.floor(min(left)),
        math.floor(min(top)),
        math.ceil(max(right)),
        math.ceil(max(bottom)),
    )
    inside = box.overlap(Box(0, 0, parts.width, parts.height))
    return inside if inside.width and inside.height else None
