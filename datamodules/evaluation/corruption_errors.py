"""Accuracy on corrupted images put together: per corruption, and the mean corruption error."""

from collections.abc import Mapping

from datamodules.corruptions import CORRUPTIONS, SEVERITIES
from datamodules.files.errors import UserError

ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""Errors of AlexNet on ImageNet-C, mean over the 5 severities: the unit of the mCE."""


def accuracy_by_corruption(accuracies: Mapping[str, float]) -> dict[str, float]:
    """Mean accuracy over the 5 severities of each corruption, as in Table 3 of PartImageNet++.

    Args:
        accuracies: accuracy in [0, 1] by name of the set, such as `fog/3`; other sets do no harm.

    Returns:
        By corruption, in the published order; corruptions that lack a severity are left out.
    """
    names = {name: [f"{name}/{severity}" for severity in SEVERITIES] for name in CORRUPTIONS}
    return {
        name: sum(accuracies[each] for each in sets) / len(sets)
        for name, sets in names.items()
        if all(each in accuracies for each in sets)
    }


def corruption_errors(accuracies: Mapping[str, float]) -> dict[str, float]:
    """Error of each corruption divided by AlexNet's (CE): 1 is as good as AlexNet, low is good.

    Only means something for the 1,000 classes of ImageNet.

    Args:
        accuracies: as for `accuracy_by_corruption`.
    """
    means = accuracy_by_corruption(accuracies)
    return {name: (1 - accuracy) / ALEXNET_ERRORS[name] for name, accuracy in means.items()}


def mean_corruption_error(accuracies: Mapping[str, float]) -> float:
    """The mCE of Hendrycks & Dietterich 2019: mean of the 15 corruption errors.

    Args:
        accuracies: as for `accuracy_by_corruption`.

    Raises:
        UserError: if one of the 75 sets is missing; a mean over fewer is no mCE.
    """
    errors = corruption_errors(accuracies)
    if lacking := [name for name in CORRUPTIONS if name not in errors]:
        raise UserError(
            f"the mCE needs 5 severities of all 15 corruptions, not complete: {', '.join(lacking)}"
        )
    return sum(errors.values()) / len(errors)
