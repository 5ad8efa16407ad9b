"""The photographs that the frost corruption lays over images; not part of this project.

They are published with the generator of ImageNet-C and inside the package `imagecorruptions`.
"""

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.files.errors import MissingInputError
from datamodules.images.image_files import read_image, read_size

OVERLAY_FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
HOW_TO_GET = (
    "set `frost_images` to a folder with the published frost1.png to frost5.jpg "
    "(hendrycks/robustness, ImageNet-C/create_c) or install imagecorruptions"
)


def overlay_folder(frost_images: Path | None) -> Path | None:
    """Where the overlays are: the folder given, else that of an installed `imagecorruptions`.

    The package is looked up, not imported: it breaks with today's NumPy and scikit-image.
    """
    if frost_images is not None:
        return Path(frost_images)
    package = importlib.util.find_spec("imagecorruptions")
    return Path(package.origin).parent / "frost" if package and package.origin else None


def overlay_problem(frost_images: Path | None, size: int) -> str:
    """Why images of `size` px a side cannot be frosted, one line; empty if they can."""
    folder = overlay_folder(frost_images)
    if folder is None:
        return f"frost overlays are not at hand: {HOW_TO_GET}"
    for name in OVERLAY_FILES:
        if not (folder / name).is_file():
            return f"frost overlay {folder / name} does not exist: {HOW_TO_GET}"
        if min(read_size(folder / name)) <= size:
            return f"frost overlay {folder / name} is not larger than {size} px"
    return ""


def overlays_hash(frost_images: Path | None) -> str:
    """SHA-256 of the five files, which must be at hand."""
    folder = overlay_folder(frost_images)
    assert folder is not None
    return hashlib.sha256(b"".join((folder / n).read_bytes() for n in OVERLAY_FILES)).hexdigest()


def read_overlays(frost_images: Path | None) -> tuple[NDArray[np.uint8], ...]:
    """The five overlays that are drawn from: uint8 `(H, W, 3)` each.

    Raises:
        MissingInputError: if they are not at hand; says how to get them.
        UserError: if a file cannot be decoded.
    """
    folder = overlay_folder(frost_images)
    if folder is None:
        raise MissingInputError(f"frost overlays are not at hand: {HOW_TO_GET}")
    return _read(folder)


@lru_cache(maxsize=1)
def _read(folder: Path) -> tuple[NDArray[np.uint8], ...]:
    return tuple(np.asarray(read_image(folder / name)) for name in OVERLAY_FILES)
