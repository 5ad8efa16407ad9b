"""Digital corruptions of ImageNet-C."""

from io import BytesIO

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from PIL import Image as PillowImage
from scipy import ndimage

Image = NDArray[np.uint8]
Values = NDArray[np.floating]


def contrast(image: Image, severity: int, random: RandomState) -> Values:
    """Shrinks each channel towards its mean: `(H, W, 3)` in [0, 255]; draws nothing."""
    kept = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    values = image / 255.0
    means = values.mean(axis=(0, 1), keepdims=True)
    return np.clip((values - means) * kept + means, 0, 1) * 255


def elastic_transform(image: Image, severity: int, random: RandomState) -> Values:
    """A random affine map and a smooth random displacement: `(H, W, 3)` in [0, 255].

    The published lengths are multiples of 244 px whatever the size of the image.
    """
    alpha, sigma, shear = (
        (244 * 2, 244 * 0.7, 244 * 0.1),
        (244 * 2, 244 * 0.08, 244 * 0.2),
        (244 * 0.05, 244 * 0.01, 244 * 0.02),
        (244 * 0.07, 244 * 0.01, 244 * 0.02),
        (244 * 0.12, 244 * 0.01, 244 * 0.02),
    )[severity - 1]
    height, width = image.shape[:2]
    # the published code takes the points as (x, y) though its centre is (height, width) // 2
    centre = np.array([height // 2, width // 2], np.float32)
    third = min(height, width) // 3
    corners = np.array(
        [centre + third, [centre[0] + third, centre[1] - third], centre - third], np.float32
    )
    moved = corners + random.uniform(-shear, shear, size=(3, 2)).astype(np.float32)
    values = warp_affine(image.astype(np.float32) / 255, affine_map(corners, moved))

    def displacement() -> Values:
        field = random.uniform(-1, 1, size=(height, width))
        smooth = ndimage.gaussian_filter(field, sigma, mode="reflect", truncate=3)
        return (smooth * alpha).astype(np.float32)

    across, down = displacement(), displacement()
    where = np.stack(
        [
            _reflected(np.arange(height)[:, None] + down, height),
            _reflected(np.arange(width)[None] + across, width),
        ]
    )
    channels = [
        ndimage.map_coordinates(values[:, :, channel], where, order=1, mode="nearest")
        for channel in range(3)
    ]
    return np.clip(np.stack(channels, axis=2), 0, 1) * 255


def pixelate(image: Image, severity: int, random: RandomState) -> Image:
    """Shrinks and enlarges, both by boxes: uint8 `(H, W, 3)`; draws nothing."""
    factor = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    height, width = image.shape[:2]
    box = PillowImage.Resampling.BOX
    small = PillowImage.fromarray(image).resize((int(width * factor), int(height * factor)), box)
    return np.asarray(small.resize((width, height), box))


def jpeg_compression(image: Image, severity: int, random: RandomState) -> Image:
    """Through a JPEG of low quality: uint8 `(H, W, 3)`; draws nothing."""
    return through_jpeg(image, (25, 18, 15, 10, 7)[severity - 1])


def through_jpeg(image: Image, quality: int, optimize: bool = False) -> Image:
    """What is left of an image in a JPEG file of Pillow's."""
    file = BytesIO()
    PillowImage.fromarray(image).save(file, "JPEG", quality=quality, optimize=optimize)
    with PillowImage.open(file) as decoded:
        return np.asarray(decoded)


def affine_map(points: Values, images: Values) -> Values:
    """The affine map that takes three points (x, y) to three others: float64 `(2, 3)`."""
    homogeneous = np.column_stack([points.astype(np.float64), np.ones(3)])
    return np.linalg.solve(homogeneous, images.astype(np.float64)).T


def warp_affine(values: Values, forward: Values) -> Values:
    """Warps linearly with mirrored borders, as OpenCV 4.5: positions in 32nds of a pixel.

    Args:
        values: float32 `(H, W, C)`.
        forward: `(2, 3)`, takes positions (x, y) of the image to those of the outcome.

    Returns:
        float32 `(H, W, C)`.
    """
    height, width = values.shape[:2]
    linear = np.linalg.inv(forward[:, :2])
    shift = -linear @ forward[:, 2]
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    whole, part = [], []
    for axis in (0, 1):
        # 10 bits after the point while adding, half a 32nd for rounding, 5 bits kept
        start = np.rint((linear[axis, 1] * rows + shift[axis]) * 1024).astype(np.int64) + 16
        position = (start + np.rint(linear[axis, 0] * columns * 1024).astype(np.int64)) >> 5
        whole.append(position >> 5)
        part.append(((position & 31) / np.float32(32)).astype(np.float32)[:, :, None])
    (left, top), (right_share, bottom_share) = whole, part
    outcome = np.zeros_like(values)
    for down, y_share in ((0, 1 - bottom_share), (1, bottom_share)):
        for across, x_share in ((0, 1 - right_share), (1, right_share)):
            taps = values[_mirrored(top + down, height), _mirrored(left + across, width)]
            outcome += taps * (y_share * x_share)
    return outcome


def _mirrored(position: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Positions beyond the ends, mirrored about the first and last: in [0, length)."""
    folded = np.abs(position) % (2 * length - 2)
    return np.minimum(folded, 2 * length - 2 - folded)


def _reflected(position: Values, length: int) -> Values:
    """Positions beyond the ends, as "reflect" of SciPy took them when ImageNet-C was made.

    Seen with SciPy 1.5; SciPy 1.17 takes the first pixel beyond an end otherwise.
    """
    last = length - 1
    inside = np.where(position < 0, np.where(position < -1, -position - 1, 1 + position), position)
    beyond = np.where(inside < length, 2 * last - inside, 2 * length - 1 - inside)
    return np.where(inside > last, beyond, inside)
