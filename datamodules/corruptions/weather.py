"""Weather corruptions of ImageNet-C."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from numpy.random import RandomState
from numpy.typing import NDArray

from datamodules.corruptions.blur import magnify, smear
from datamodules.files.errors import UserError

Image = NDArray[np.uint8]
Values = NDArray[np.floating]


def snow(image: Image, severity: int, random: RandomState) -> Values:
    """Whitens and adds flakes, smeared downwards, twice: `(H, W, 3)` in [0, 255]."""
    mean, deviation, zoom, threshold, radius, sigma, kept = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )[severity - 1]
    values = image.astype(np.float32) / 255
    flakes = magnify(random.normal(mean, deviation, image.shape[:2]), zoom)
    flakes[flakes < threshold] = 0
    pixels = (np.clip(flakes, 0, 1) * 255).astype(np.uint8)
    layer = smear(pixels, int(radius), sigma, random.uniform(-135, -45))[:, :, None] / 255.0
    white = kept * values + (1 - kept) * np.maximum(values, _grey(values) * 1.5 + 0.5)
    return np.clip(white + layer + np.rot90(layer, k=2), 0, 1) * 255


def frost(
    image: Image, severity: int, random: RandomState, overlays: Sequence[Image] = ()
) -> Values:
    """Adds a part of a photograph of frost: `(H, W, 3)` in [0, 255].

    Args:
        image: uint8 `(H, W, 3)`.
        severity: 1 to 5.
        random: where the draws come from.
        overlays: the first five published photographs; the sixth is never drawn.

    Raises:
        UserError: if an overlay is not larger than the image, or there are not five.
    """
    kept, added = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[severity - 1]
    height, width = image.shape[:2]
    if len(overlays) != 5:
        raise UserError(f"frost needs the 5 published overlays, not {len(overlays)}")
    overlay = overlays[random.randint(5)]
    if overlay.shape[0] <= height or overlay.shape[1] <= width:
        raise UserError(
            f"frost overlay of {overlay.shape[1]}x{overlay.shape[0]} px must be larger than the "
            f"image of {width}x{height} px: corrupt smaller images"
        )
    top = random.randint(0, overlay.shape[0] - height)
    left = random.randint(0, overlay.shape[1] - width)
    crop = overlay[top : top + height, left : left + width]
    return np.clip(kept * image.astype(np.float64) + added * crop, 0, 255)


def fog(image: Image, severity: int, random: RandomState) -> Values:
    """Adds a cloud of plasma and darkens to the former maximum: `(H, W, 3)` in [0, 255]."""
    amount, decay = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))[severity - 1]
    height, width = image.shape[:2]
    values = image / 255.0
    brightest = values.max()
    side = 1 << (max(height, width) - 1).bit_length()
    cloud = _plasma(side, decay, random)[:height, :width, None]
    return np.clip((values + amount * cloud) * brightest / (brightest + amount), 0, 1) * 255


def brightness(image: Image, severity: int, random: RandomState) -> Values:
    """Raises the value of HSV: `(H, W, 3)` in [0, 255]; draws nothing."""
    added = (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1]
    hsv = rgb_to_hsv(image / 255.0)
    hsv[:, :, 2] = np.clip(hsv[:, :, 2] + added, 0, 1)
    return np.clip(hsv_to_rgb(hsv), 0, 1) * 255


def _grey(values: Values) -> Values:
    """Luma of float32 `(H, W, 3)`: `(H, W, 1)`, the sum fused as OpenCV does it."""
    red, green, blue = (values[:, :, [channel]] for channel in range(3))
    total = green * np.float32(0.587)
    for channel, weight in ((red, 0.299), (blue, 0.114)):
        # a product of two float32 is exact in float64: one rounding, as fused
        total = (channel.astype(np.float64) * np.float32(weight) + total).astype(np.float32)
    return total


def _plasma(side: int, decay: float, random: RandomState) -> Values:
    """Diamond-square heights on a torus, from 0 to 1: `(side, side)`, side a power of two."""
    heights = np.zeros((side, side))
    step, swing = side, 100.0

    def wobble(total: Values) -> Values:
        return total / 4 + swing * random.uniform(-swing, swing, total.shape)

    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        centres = wobble(pairs + np.roll(pairs, -1, axis=1))
        heights[half::step, half::step] = centres
        level = centres + np.roll(centres, 1, axis=0)
        heights[::step, half::step] = wobble(level + (corners + np.roll(corners, -1, axis=1)))
        upright = centres + np.roll(centres, 1, axis=1)
        heights[half::step, ::step] = wobble(upright + (corners + np.roll(corners, -1, axis=0)))
        step, swing = half, swing / decay
    heights -= heights.min()
    return heights / heights.max()
