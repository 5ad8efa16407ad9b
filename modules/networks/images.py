"""Images as the data hands them over and as networks take them."""

from torch import Tensor


def as_float(images: Tensor) -> Tensor:
    """Images in [0, 1] of such images or of uint8 ones, any shape; floats are not copied."""
    return images if images.is_floating_point() else images.float().div_(255)
