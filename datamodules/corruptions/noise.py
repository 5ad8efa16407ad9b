"""Noise corruptions of ImageNet-C."""

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Values = NDArray[np.floating]


def gaussian_noise(image: Image, severity: int, random: RandomState) -> Values:
    """Adds normal noise to each value: `(H, W, 3)` in [0, 255]."""
    scale = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return np.clip(image / 255.0 + random.normal(scale=scale, size=image.shape), 0, 1) * 255


def shot_noise(image: Image, severity: int, random: RandomState) -> Values:
    """Draws each value as a count of photons: `(H, W, 3)` in [0, 255]."""
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return np.clip(random.poisson(image / 255.0 * photons) / photons, 0, 1) * 255


def impulse_noise(image: Image, severity: int, random: RandomState) -> Values:
    """Sets single values, each channel by itself, to 0 or 1: `(H, W, 3)` in [0, 255]."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    hit = random.random_sample(image.shape) < share
    white = random.random_sample(image.shape) < 0.5
    return np.where(hit, np.where(white, 1.0, 0.0), image / 255.0) * 255
