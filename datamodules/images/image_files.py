"""Image files: which files are images, and how each kind of pixel becomes 8-bit RGB."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from datamodules.files.errors import MissingInputError, UserError
from datamodules.files.names import printable, require_utf8
from datamodules.images.orientation import exif_orientation

IMAGE_SUFFIXES = frozenset(IMG_EXTENSIONS)
DEEPEST_8_BIT, DEEPEST_16_BIT, DEEPEST_32_BIT = 2**8 - 1, 2**16 - 1, 2**32 - 1
# Errors of the operating system that tell of the file: a place that a damaged header points to, a
# folder with the name of an image. Pillow's own have no number. All others may pass.
OF_THE_FILE = (None, errno.EINVAL, errno.EISDIR)
# Formats whose 32-bit mode of Pillow holds 16-bit samples.
HOLDS_16_BIT = ("PNG", "PPM")


class BadImageError(UserError):
    """An image file that can be read, but holds no image that can be used."""


def is_image(name: str) -> bool:
    """Whether a file of this name counts as an image, here and everywhere else.

    The suffixes are torchvision's; what starts with a dot is no data (`._cat.jpg` of macOS).
    """
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def visible_folders(folder: Path) -> list[Path]:
    """The folders in a folder by name, without hidden ones such as `.ipynb_checkpoints`."""
    entries = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in entries if path.is_dir())


def images_below(folder: Path) -> list[Path]:
    """Image files at any depth below a folder by path, without hidden files and folders.

    Raises:
        UserError: if the name of one is not UTF-8 text.
    """
    found = sorted(
        path
        for path in folder.rglob("*")
        if is_image(path.name)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    require_utf8(folder, (str(path.relative_to(folder)) for path in found))
    return found


@contextmanager
def opened_image(path: Path) -> Iterator[Image.Image]:
    """Opens an image file of any mode; pixels are decoded when they are first asked for.

    Raises:
        MissingInputError: if there is no such file.
        BadImageError: naming the file, for whatever the image library raises in the block: damaged
            files end in nearly any exception of Python.
        UserError: if the operating system fails to read the file, of which that says nothing.
    """
    try:
        with Image.open(path) as image:
            yield image
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, FileNotFoundError) and not os.path.exists(path):
            raise MissingInputError(f"image {printable(path)} does not exist") from None
        reason = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.errno not in OF_THE_FILE:
            raise UserError(
                f"{printable(path)} cannot be read ({error.strerror or reason}): see to its disk, "
                "its rights or this machine, then run the same command again"
            ) from None
        raise BadImageError(
            f"{printable(path)} cannot be decoded ({reason}): replace it or take it out of the "
            "folder"
        ) from None


def read_image(path: Path) -> Image.Image:
    """Decodes an image file to 8-bit RGB as a viewer shows it, pixels in the order stored.

    Deeper samples are scaled to 8 bits, transparent pixels lie on white, palettes and CMYK are
    converted. An EXIF orientation is not applied: annotations and ImageNet count pixels as
    they are stored.

    Raises:
        MissingInputError: if there is no such file.
        BadImageError: if the file cannot be decoded, or its samples have no known range; the
            message names it.
        UserError: if the operating system fails to read it.
    """
    with opened_image(path) as image:
        image.load()
        if image.mode == "RGB" and "transparency" not in image.info:
            return image  # no copy of the pixels
        if image.mode.startswith(("I", "F")):
            return Image.fromarray(_to_8_bits(image, path)).convert("RGB")
        if image.has_transparency_data:
            pixels = image.convert("RGBA")
            white = Image.new("RGBA", pixels.size, "white")
            return Image.alpha_composite(white, pixels).convert("RGB")
        return image.convert("RGB")


class ImageHeader(NamedTuple):
    """What an image file says before its pixels.

    Attributes:
        height: in pixels as stored.
        width: in pixels as stored.
        orientation: of EXIF, 1 (upright) to 8; not applied.
    """

    height: int
    width: int
    orientation: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width


def read_header(path: Path) -> ImageHeader:
    """What an image file says before its pixels.

    Raises:
        MissingInputError: if there is no such file.
        BadImageError: if it has no readable header.
        UserError: if the operating system fails to read it.
    """
    with opened_image(path) as image:
        return ImageHeader(image.height, image.width, exif_orientation(image))


def read_size(path: Path) -> tuple[int, int]:
    """Height and width of an image in pixels as stored, from its header alone.

    Raises:
        MissingInputError: if there is no such file.
        BadImageError: if it has no readable header.
        UserError: if the operating system fails to read it.
    """
    with opened_image(path) as image:
        return image.height, image.width


def _to_8_bits(image: Image.Image, path: Path) -> np.ndarray:
    """Grey samples `(H, W)` of 16 or 32 bits, or of floats in [0, 1], as uint8."""
    samples = np.asarray(image).astype(np.float64)
    least, most = samples.min(initial=0), samples.max(initial=0)
    if image.mode == "F":
        full = 1.0
    elif image.mode.startswith("I;16") or image.format in HOLDS_16_BIT:
        full = DEEPEST_16_BIT
    else:
        full = DEEPEST_32_BIT
        if most <= DEEPEST_16_BIT:  # perhaps 16-bit samples: scaling by 32 bits would be black
            most = np.nan
    if not (least >= 0 and most <= full):
        raise BadImageError(
            f"{path} has samples of mode {image.mode} from {samples.min():g} to {samples.max():g}, "
            "whose white is not known: save it with 8 or 16 bits, or floats in [0, 1]"
        )
    return np.rint(samples * (DEEPEST_8_BIT / full)).astype(np.uint8)
