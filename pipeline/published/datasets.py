"""Sizes of part data sets."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedDataset:
    """Size of a part data set (Table 1).

    Attributes:
        name: Name of the data set.
        objects: Object categories.
        parts: Part categories.
        images: Annotated images; thousands where the table rounds.
        masks: Part masks; hundreds or thousands where the table rounds.
    """

    name: str
    objects: int
    parts: int
    images: int
    masks: int


TABLE_1 = (
    PublishedDataset("Cityscapes PP", 5, 23, 3_500, 100_000),
    PublishedDataset("Pascal-Part", 20, 193, 19_000, 363_500),
    PublishedDataset("ADE20K", 80, 566, 12_600, 193_200),
    PublishedDataset("PACO", 75, 456, 76_700, 641_400),
    PublishedDataset("PartImageNet", 158, 609, 24_000, 112_000),
    PublishedDataset("PartImageNet++", 1_000, 3_308, 100_000, 406_364),
)
"""Part data sets (Table 1); the masks of PartImageNet++ as Appendix D counts them."""

TABLE_S1 = {"1-2": 46.27, "3-4": 44.87, "5-6": 8.66, "7+": 0.20}
"""Percent of PartImageNet++ images by number of part masks (Table S1)."""

INCLUSION_RELATIONS = (317, 201)
"""Inclusion relations of PartImageNet++ and the object categories that have any (Appendix D)."""
