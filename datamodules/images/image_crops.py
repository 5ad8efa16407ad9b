"""Square crops of image files, decoded and resized by what is fastest."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from datamodules.images.image_files import read_image
from datamodules.images.jpeg_rows import PlainJpeg
from datamodules.images.recognition import to_tensor

Resampling = Literal["torch", "pillow"]
Box = tuple[float, float, float, float]


def read_crop(
    path: Path, size: int, box_of: Callable[[int, int], Box], resampling: Resampling
) -> Tensor:
    """Decodes an image file and resizes a part of it, bicubic with antialiasing.

    `torch` resizes several times faster than Pillow, whose values of the same crop it meets but
    for rounding: few differ by more than one in 255. It rounds the box to whole pixels, and
    decodes plain JPEG files no further than the box, see `jpeg_rows`.
    `pillow` gives the same values on every processor and takes box edges between pixels, and
    pixels just outside of the box, into account.

    Args:
        path: image file.
        size: side of the outcome in pixels.
        box_of: called with height and width of the image; gives left, top, right and bottom in
            its pixels.
        resampling: which library resizes.

    Returns:
        uint8 `(3, size, size)`.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if the file is not a readable image; the message names it.
    """
    if resampling == "pillow":
        image = read_image(path)
        box = box_of(image.height, image.width)
        return to_tensor(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
    crop = _cut(path, box_of)
    return F.interpolate(crop[None], (size, size), mode="bicubic", antialias=True)[0]


def _cut(path: Path, box_of: Callable[[int, int], Box]) -> Tensor:
    """The box rounded to whole pixels, uint8 `(3, h, w)`."""
    if jpeg := PlainJpeg.read(path):
        left, top, right, bottom = _whole(box_of, jpeg.height, jpeg.width)
        if (rows := jpeg.rows(bottom)) is not None:
            return torch.from_numpy(rows[top:, left:right]).permute(2, 0, 1)
    image = read_image(path)
    return to_tensor(image.crop(_whole(box_of, image.height, image.width)))


def _whole(box_of: Callable[[int, int], Box], height: int, width: int) -> tuple[int, int, int, int]:
    """The box in whole pixels, at least one of them, inside the image."""
    left, top, right, bottom = map(round, box_of(height, width))
    left, top = min(left, width - 1), min(top, height - 1)
    return left, top, max(right, left + 1), max(bottom, top + 1)
