"""Downstream detection."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedDetection:
    """Faster R-CNN on COCO after downstream adversarial training (Table S5).

    Attributes:
        initialisation: The recogniser that the backbone started from.
        clean: AP and AP50 on clean images, percent.
        classification: The same under A_cls, PGD-10 on the classification loss.
        regression: The same under A_reg, PGD-10 on the box regression loss.
    """

    initialisation: str
    clean: tuple[float, float]
    classification: tuple[float, float]
    regression: tuple[float, float]


TABLE_S5 = (
    PublishedDetection("Li et al. 2023", (29.9, 49.3), (14.8, 25.5), (19.7, 40.5)),
    PublishedDetection("vanilla AT", (29.9, 49.8), (14.5, 25.4), (19.3, 40.2)),
    PublishedDetection("MPM", (30.3, 50.3), (14.8, 25.9), (19.8, 40.7)),
)
"""Downstream detection (Table S5)."""
