"""Images whose annotation says how large they are."""

from pathlib import Path

from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from datamodules.files.errors import UserError
from datamodules.images.image_files import read_header, read_image
from datamodules.images.orientation import turned_reason


def read_annotated(path: Path, height: int, width: int) -> Tensor:
    """Decodes an image, uint8 `(3, height, width)`; see `open_annotated`."""
    return pil_to_tensor(open_annotated(path, height, width))


def open_annotated(path: Path, height: int, width: int) -> Image.Image:
    """Decodes an image to 8-bit RGB.

    Args:
        path: image file.
        height: what its annotation says, in pixels.
        width: the same.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if it cannot be decoded or has another size.
    """
    picture = read_image(path)
    if picture.size != (width, height):
        stored = (picture.height, picture.width)
        reason = turned_reason(read_header(path).orientation, stored, (height, width))
        raise UserError(
            f"{path} is {picture.width}x{picture.height}, its annotation says "
            f"{width}x{height} (width x height): {reason or 'correct one of them'}"
        )
    return picture
