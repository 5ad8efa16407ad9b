"""Recognition without an attack: corruptions, other distributions, people, biases."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedCorruptions:
    """Accuracy under the corruptions of ImageNet-C, mean over 5 severities (Table 3), percent.

    Attributes:
        method: How the model was trained.
        accuracies: By corruption, in the published order.
        average: Mean of the 15, as printed.
    """

    method: str
    accuracies: dict[str, float]
    average: float


def _table_3(method: str, accuracies: str, average: float) -> PublishedCorruptions:
    names = (
        "gaussian_noise shot_noise impulse_noise defocus_blur glass_blur motion_blur zoom_blur "
        "snow frost fog brightness contrast elastic_transform pixelate jpeg_compression"
    )
    by_name = zip(names.split(), map(float, accuracies.split()), strict=True)
    return PublishedCorruptions(method, dict(by_name), average)


TABLE_3 = (
    _table_3(
        "standard",
        "31.2 30.7 27.3 39.0 28.6 39.5 37.8 35.8 40.7 53.8 69.0 38.0 37.0 47.1 57.0",
        40.8,
    ),
    _table_3(
        "MPM, standard training",
        "31.5 31.0 28.4 41.9 29.8 40.3 36.7 37.0 41.3 55.3 69.6 39.6 36.9 52.9 59.9",
        42.1,
    ),
    _table_3(
        "vanilla AT",
        "29.6 28.5 21.0 23.3 32.9 32.8 34.4 34.2 34.0 10.8 58.4 9.5 52.2 58.8 63.1",
        34.9,
    ),
    _table_3(
        "MPM",
        "30.1 29.2 22.4 25.2 35.1 35.0 36.4 36.4 36.2 11.9 59.7 10.4 53.1 59.8 64.3",
        36.4,
    ),
)
"""Accuracy under the 15 corruptions (Table 3)."""


@dataclass(frozen=True)
class PublishedShifts:
    """Accuracy on the out-of-distribution sets (Table 4), percent.

    Attributes:
        method: How the model was trained.
        a_plus: ImageNet-A-Plus.
        sketch: ImageNet-Sketch.
        stylized: Stylized-ImageNet, its val set.
        din: The 17 experiments of Geirhos et al. 2021, 16 categories.
        average: Mean of the four.
    """

    method: str
    a_plus: float
    sketch: float
    stylized: float
    din: float
    average: float


TABLE_4 = (
    PublishedShifts("standard", 6.9, 25.8, 6.9, 53.5, 23.3),
    PublishedShifts("MPM, standard training", 7.4, 25.7, 7.4, 53.9, 23.6),
    PublishedShifts("vanilla AT", 5.3, 25.1, 12.5, 55.4, 24.6),
    PublishedShifts("MPM", 5.7, 26.4, 12.6, 55.9, 25.2),
)
"""Out-of-distribution sets (Table 4)."""


@dataclass(frozen=True)
class PublishedAlignment:
    """Alignment with people (Table S4).

    Attributes:
        method: How the model was trained.
        accuracy_difference: Mean squared difference of accuracies; low is good.
        observed_consistency: Share of images that both get right or both get wrong.
        error_consistency: Cohen's kappa of that.
    """

    method: str
    accuracy_difference: float
    observed_consistency: float
    error_consistency: float


TABLE_S4 = (
    PublishedAlignment("standard", 0.083, 0.665, 0.195),
    PublishedAlignment("MPM, standard training", 0.081, 0.668, 0.204),
    PublishedAlignment("vanilla AT", 0.069, 0.676, 0.252),
    PublishedAlignment("MPM", 0.069, 0.679, 0.261),
)
"""Alignment with people (Table S4)."""


@dataclass(frozen=True)
class PublishedBias:
    """General robustness of part models (slides of Sitawarin et al. 2023), accuracy in percent.

    Attributes:
        method: Name of the method.
        corruptions: On corrupted images.
        texture: On stylised images.
        background: On objects before backgrounds of other classes.
    """

    method: str
    corruptions: float
    texture: float
    background: float


PART_MODELS_GENERAL = (
    PublishedBias("ResNet-50 (Sitawarin et al.)", 82.3, 40.6, 58.6),
    PublishedBias("part model (Sitawarin et al.)", 85.8, 45.7, 65.1),
)
"""Sitawarin et al. 2023, on PartImageNet's super-categories."""
