"""Blur corruptions of ImageNet-C, and what snow shares with them."""

from collections.abc import Sequence

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from scipy import ndimage, signal

Image = NDArray[np.uint8]
Values = NDArray[np.floating]


def defocus_blur(image: Image, severity: int, random: RandomState) -> Values:
    """Averages over a disk with soft edge: `(H, W, 3)` in [0, 255]; draws nothing."""
    radius, softness = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity - 1]
    kernel = _disk(radius, softness).astype(np.float64)[:, :, None]
    reach = kernel.shape[0] // 2
    padded = np.pad(image / 255.0, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    blurred = signal.fftconvolve(padded, kernel, mode="valid", axes=(0, 1))
    return np.clip(blurred, 0, 1) * 255


def glass_blur(image: Image, severity: int, random: RandomState) -> Values:
    """Scatters pixels between two Gaussian blurs: `(H, W, 3)` in [0, 255]."""
    sigma, reach, times = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[
        severity - 1
    ]
    scattered = (_gaussian(image / 255.0, sigma) * 255).astype(np.uint8)
    for _ in range(times):
        scattered = _scatter(scattered, reach, random)
    return np.clip(_gaussian(scattered / 255.0, sigma), 0, 1) * 255


def motion_blur(image: Image, severity: int, random: RandomState) -> Values:
    """Smears along a line within 45 degrees of the horizontal: `(H, W, 3)`, whole numbers."""
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    return smear(image, radius, sigma, random.uniform(-45, 45)).astype(np.float64)


def zoom_blur(image: Image, severity: int, random: RandomState) -> Values:
    """Averages over magnifications about the centre: `(H, W, 3)` in [0, 255]; draws nothing."""
    stop, step = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))[
        severity - 1
    ]
    factors = np.arange(1, stop, step)
    values = (image / 255.0).astype(np.float32)
    total = np.zeros_like(values)
    for factor in factors:
        total += magnify(values, factor)
    return np.clip((values + total) / (len(factors) + 1), 0, 1) * 255


def magnify(values: Values, factor: float) -> Values:
    """The centre of an image `(H, W, ...)`, magnified (linear) to the size of the image."""
    windows = []
    for side in values.shape[:2]:
        length = int(np.ceil(side / factor))
        start = (side - length) // 2
        windows.append(slice(start, start + length))
    centre = values[tuple(windows)]
    zoom = (factor, factor) + (1,) * (values.ndim - 2)
    larger = ndimage.zoom(centre, zoom, order=1)
    trims = [
        slice((there - side) // 2, (there - side) // 2 + side)
        for there, side in zip(larger.shape[:2], values.shape[:2], strict=True)
    ]
    return larger[tuple(trims)]


def smear(image: Image, radius: int, sigma: float, angle: float) -> Image:
    """ImageMagick's motion blur: half a Gaussian along whole pixel steps, edges repeated.

    Sums are rounded to 16 bits and cut to 8, as ImageMagick with 16-bit quanta does.

    Args:
        image: uint8 `(H, W)` or `(H, W, 3)`.
        radius: the line is `2 * radius + 1` pixels long.
        sigma: standard deviation in pixels.
        angle: direction in degrees; 0 is horizontal.
    """
    length = 2 * radius + 1
    steps = np.arange(length)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    turn = np.deg2rad(angle)
    across = np.ceil(steps * np.cos(turn) - 0.5).astype(int)
    down = np.ceil(steps * np.sin(turn) - 0.5).astype(int)
    edges = ((length, length), (length, length)) + ((0, 0),) * (image.ndim - 2)
    quanta = np.pad(image, edges, mode="edge") * 257.0
    height, width = image.shape[:2]
    total = np.zeros(image.shape)
    for weight, dx, dy in zip(weights, across, down, strict=True):
        top, left = length + dy, length + dx
        total += weight * quanta[top : top + height, left : left + width]
    return (np.floor(total + 0.5) // 257).astype(np.uint8)


def _gaussian(values: Values, sigma: float) -> Values:
    return ndimage.gaussian_filter(values, (sigma, sigma, 0), mode="nearest", truncate=4.0)


def _disk(radius: int, softness: float) -> Values:
    """A disk of sum 1, blurred by a Gaussian of 3 (5 beyond radius 8) values a side: float32.

    In severity 3 the last bit of its sum decides whether flat areas get darker by one, so sums
    are those of OpenCV on processors with fused multiply-add, in its order.
    """
    reach, taps = (8, 1) if radius <= 8 else (radius, 2)
    line = np.arange(-reach, reach + 1)
    disk = (line[:, None] ** 2 + line[None] ** 2 <= radius**2).astype(np.float32)
    disk /= disk.sum()
    weights = np.exp(-(np.arange(taps + 1) ** 2) / (2 * softness**2))
    weights = (weights / (weights[0] + 2 * weights[1:].sum())).astype(np.float32)
    rows = _fused_sum(disk.T, weights, [1, 0, 2][: taps + 1])
    return _fused_sum(rows.T, weights, [0, 1, 2][: taps + 1])


def _fused_sum(lines: Values, weights: Values, order: Sequence[int]) -> Values:
    """Correlates lines with a symmetric kernel, one pair of neighbours after the other: float32.

    Args:
        lines: float32 `(N, M)`, summed along the first axis, mirrored at its ends.
        weights: weight by distance from the middle.
        order: distances in the order of summing.
    """
    number, reach = len(lines), len(weights) - 1
    padded = np.pad(lines, ((reach, reach), (0, 0)), mode="reflect")
    total = np.zeros_like(lines)
    for distance in order:
        pair = padded[reach - distance :][:number]
        if distance:
            pair = pair + padded[reach + distance :][:number]
        # a product of two float32 is exact in float64: one rounding, as fused
        total = (pair.astype(np.float64) * weights[distance] + total).astype(np.float32)
    return total


def _scatter(image: Image, reach: int, random: RandomState) -> Image:
    """Each pixel, from the last to the first, takes the present value of a random neighbour.

    The published loop means to swap the two; as written it copies, and so are the images. Where
    the neighbour was itself replaced before, its source is taken: the chains of sources are
    followed by pointer doubling, in the order of the loop, which comes to the same values.
    """
    height, width = image.shape[:2]
    number = height * width
    # the loop leaves out the first reach + 1 rows and columns, and the last reach - 1
    rows, columns = np.meshgrid(
        np.arange(height - reach, reach, -1), np.arange(width - reach, reach, -1), indexing="ij"
    )
    moves = random.randint(-reach, reach, size=(rows.size, 2))
    here = (rows * width + columns).ravel()
    there = here + moves[:, 1] * width + moves[:, 0]
    # pixel p after the loop is node p, before the loop it is node number + p
    before = np.arange(number, 2 * number)
    replaced = np.zeros(number, bool)
    replaced[here] = True
    source = np.concatenate([before, before])
    source[here] = np.where(replaced[there] & (there > here), there, there + number)
    while (source < number).any():
        source = source[source]
    return image.reshape(number, 3)[source[:number] - number].reshape(image.shape)
