"""The 15 corruptions of ImageNet-C in 5 severities (Hendrycks & Dietterich 2019).

Parameters and formulas are those of the published generator, for square images of 224 px those
values exactly; other sizes use the same parameters, and the smallest power of two that covers the
image for the fog. Random numbers come from NumPy's frozen `RandomState` in the published order:
with the same seed the draws are the same.

All 75 were bit-equal to the published generator itself (make_imagenet_c.py with NumPy 1.19, SciPy
1.5, scikit-image 0.16, OpenCV 4.5, Pillow 9.5, ImageMagick 6.9 with 16-bit quanta) on 4 images of
224 px, 3 photographs and 1 of flat colours, before the published files' JPEG; the tests hold hashes
of its outcome on a fifth. Against the port `imagecorruptions` 1.1.2, on the same images:

==================  =====================================================================
gaussian_noise      bit-equal
shot_noise          bit-equal
impulse_noise       bit-equal
defocus_blur        bit-equal
glass_blur          bit-equal (1 photograph); pixels meant to be swapped are copied in both
motion_blur         at most 1 of 255, on up to 45 % of values: the port does not round to 16 bits
zoom_blur           bit-equal; the port does not trim about the centre, which made no difference
snow                up to 157 of 255: the port smears before cutting to 8 bits, does not trim
frost               up to 146 of 255: the port enlarges the overlays by 1.1
fog                 bit-equal
brightness          bit-equal
contrast            bit-equal
elastic_transform   up to 255 of 255: the port leaves out the affine map and has other lengths
pixelate            bit-equal
jpeg_compression    bit-equal
==================  =====================================================================

Where the published outcome hangs on a library's version, it is that of the versions above: the
draws of impulse noise (scikit-image), the border of the elastic displacement (SciPy 1.17 gives
other values there), the affine map (OpenCV). `benchmarks/corruptions.py` measures times and checks
the hashes, and the port where it can be imported.
"""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.corruptions import blur, digital, noise, weather
from datamodules.corruptions.frost_overlays import read_overlays
from datamodules.files.errors import UserError

SEVERITIES = (1, 2, 3, 4, 5)
_DEFINITIONS = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": weather.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}
CORRUPTIONS = tuple(_DEFINITIONS)
"""Names in the order of the published table, which are also those of the published folders."""


def corrupt(
    image: NDArray[np.uint8],
    name: str,
    severity: int,
    seed: int,
    frost_images: Path | None = None,
) -> NDArray[np.uint8]:
    """One corrupted image; the same for the same arguments in any process.

    Args:
        image: RGB, uint8 `(H, W, 3)`, sides at least 32.
        name: one of `CORRUPTIONS`.
        severity: 1 to 5.
        seed: seed of the random draws, in [0, 2**32).
        frost_images: folder of the published frost overlays; None takes those of an installed
            `imagecorruptions`. Only frost needs it.

    Returns:
        uint8 `(H, W, 3)`; values between are cut off, not rounded, as in the published files.

    Raises:
        UserError: if an argument is out of range, or a frost overlay is too small.
        MissingInputError: if the frost overlays are not at hand.
    """
    if name not in _DEFINITIONS:
        raise UserError(f"corruption {name!r} is none of {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise UserError(f"severity {severity} of {name} is none of 1, 2, 3, 4, 5")
    rgb = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    if not rgb or min(image.shape[:2]) < 32:
        raise UserError(
            f"image to corrupt must be uint8 (H, W, 3) of at least 32 px, "
            f"not {image.dtype} {image.shape}"
        )
    random = np.random.RandomState(seed)
    if name == "frost":
        return weather.frost(image, severity, random, read_overlays(frost_images)).astype(np.uint8)
    return _DEFINITIONS[name](image, severity, random).astype(np.uint8)


def corruption_seed(seed: int, key: str, name: str, severity: int) -> int:
    """Seed of one image under one corruption, in [0, 2**32), a function of the arguments alone."""
    digest = hashlib.sha256(f"{seed}/{name}/{severity}/{key}".encode()).digest()
    return int.from_bytes(digest[:4])
