"""Category filter: only parts of the image's own object can be predicted."""

from torch import Tensor


def filter_categories(probabilities: Tensor, allowed: Tensor) -> Tensor:
    """Sets the probabilities of parts that do not belong to the object to zero.

    PartImageNet++ §4.1: the object category of a training image is known, so v_p becomes 0 for
    every part p of other objects. Nothing is renormalised: what remains keeps the value of the
    full soft-max. The background column is never touched.

    Args:
        probabilities: class probabilities `(..., K + 1)` in [0, 1]; column 0 is the background.
        allowed: bool, broadcastable to `probabilities`; True where the part belongs to the object.

    Returns:
        The filtered probabilities, in a new tensor of the same shape.

    Raises:
        ValueError: if the last dimensions differ.
    """
    if probabilities.shape[-1] != allowed.shape[-1]:
        raise ValueError(
            f"{probabilities.shape[-1]} class probabilities do not fit a filter of "
            f"{allowed.shape[-1]} classes: both count the K parts and the background"
        )
    filtered = probabilities * allowed.to(probabilities.dtype)
    filtered[..., 0] = probabilities[..., 0]
    return filtered
