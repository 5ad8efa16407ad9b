"""The published figures that results are set beside.

Every value is copied from the PartImageNet++ paper (Li et al., "PartImageNet++ Dataset: Scaling up
Part-based Models for Robust Recognition", ECCV 2024). They were measured on ImageNet-1K at 224 px
with AutoAttack (standard) on 10,000 validation images: another scale than the embedded set, or any
small run, is measured at. All accuracies and average precisions are in percent.
"""

from pipeline.published.datasets import INCLUSION_RELATIONS, TABLE_1, TABLE_S1, PublishedDataset
from pipeline.published.detection import TABLE_S5, PublishedDetection
from pipeline.published.generalisation import (
    PART_MODELS_GENERAL,
    TABLE_3,
    TABLE_4,
    TABLE_S4,
    PublishedAlignment,
    PublishedBias,
    PublishedCorruptions,
    PublishedShifts,
)
from pipeline.published.paper import AP_SCALE_NOTE, PAPER, SCALE_NOTE
from pipeline.published.robustness import (
    TABLE_2,
    TABLE_5_RECOGNISER,
    TABLE_6,
    TABLE_S2,
    TABLE_S3,
    TABLE_S6,
    TABLE_S7,
    PublishedAccuracy,
    PublishedSubset,
)
from pipeline.published.segmenter import TABLE_5_SEGMENTER, PublishedAP

__all__ = [
    "AP_SCALE_NOTE",
    "INCLUSION_RELATIONS",
    "PAPER",
    "PART_MODELS_GENERAL",
    "SCALE_NOTE",
    "TABLE_1",
    "TABLE_2",
    "TABLE_3",
    "TABLE_4",
    "TABLE_5_RECOGNISER",
    "TABLE_5_SEGMENTER",
    "TABLE_6",
    "TABLE_S1",
    "TABLE_S2",
    "TABLE_S3",
    "TABLE_S4",
    "TABLE_S5",
    "TABLE_S6",
    "TABLE_S7",
    "PublishedAP",
    "PublishedAccuracy",
    "PublishedAlignment",
    "PublishedBias",
    "PublishedCorruptions",
    "PublishedDataset",
    "PublishedDetection",
    "PublishedShifts",
    "PublishedSubset",
]
