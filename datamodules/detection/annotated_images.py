"""Images whose annotation says how large they are."""

from pathlib import Path

from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from datamodules.files.errors import UserError
from datamodules.images.image_files import read_header, read_image, read_size
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
    _compare(path, (picture.height, picture.width), (height, width))
    return picture


def require_size(path: Path, height: int, width: int) -> None:
    """Refuses an image of another size than its annotation says, by its header alone.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if it has no readable header, or another size.
    """
    _compare(path, read_size(path), (height, width))


def _compare(path: Path, stored: tuple[int, int], listed: tuple[int, int]) -> None:
    if stored != listed:
        reason = turned_reason(read_header(path).orientation, stored, listed)
        raise UserError(
            f"{path} is {stored[1]}x{stored[0]}, its annotation says {listed[1]}x{listed[0]} "
            f"(width x height): {reason or 'correct one of them'}"
        )
