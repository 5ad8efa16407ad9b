"""The published figures that results are set beside.

Every value is copied from the PartImageNet++ paper (Li et al., "PartImageNet++ Dataset: Scaling up
Part-based Models for Robust Recognition", ECCV 2024). They were measured on ImageNet-1K at 224 px
with AutoAttack (standard) on 10,000 validation images: another scale than the embedded set, or any
small run, is measured at. All accuracies and average precisions are in percent.
"""

from dataclasses import dataclass

PAPER = "Li et al., PartImageNet++, ECCV 2024"
SCALE_NOTE = "published, ImageNet-1K at 224 px, another scale"
AP_SCALE_NOTE = "published, PartImageNet++ with Swin-B, another scale"


@dataclass(frozen=True)
class PublishedAP:
    """COCO mask AP of the part segmenter (Table 5, left half).

    Attributes:
        category_filter: Whether the parts of other object categories were ruled out.
        ap: Mask AP averaged over IoU 0.50 to 0.95, percent.
        ap50: Mask AP at IoU 0.50, percent.
        source: Paper and table.
    """

    category_filter: bool
    ap: float
    ap50: float
    source: str


@dataclass(frozen=True)
class PublishedAccuracy:
    """One row of a robustness table of the paper.

    Attributes:
        method: Name of the method as the paper gives it.
        architecture: Network at inference.
        clean: Accuracy on clean images, percent.
        linf: AutoAttack accuracy at l_inf 4/255, percent.
        linf_x2: AutoAttack accuracy at l_inf 8/255, percent.
        source: Paper and table.
        l1: AutoAttack accuracy at l_1 75, percent; None where the table has no such column.
        l2: AutoAttack accuracy at l_2 2, percent; None where the table has no such column.
        average: Mean of the four robust accuracies, percent; None as above.
        parameters: Parameters at inference in millions; None where the table does not say.
    """

    method: str
    architecture: str
    clean: float
    linf: float
    linf_x2: float
    source: str
    l1: float | None = None
    l2: float | None = None
    average: float | None = None
    parameters: float | None = None


def _table_2(
    architecture: str, method: str, clean: float, robust: tuple[float, float, float, float, float]
) -> PublishedAccuracy:
    linf, linf_x2, l1, l2, average = robust
    return PublishedAccuracy(
        method, architecture, clean, linf, linf_x2, f"{PAPER}, Table 2", l1, l2, average
    )


def _table_5(method: str, clean: float, linf: float, linf_x2: float) -> PublishedAccuracy:
    source = f"{PAPER}, Table 5"
    return PublishedAccuracy(method, "ResNet-50-GELU", clean, linf, linf_x2, source)


def _table_6(
    method: str, parameters: float, clean: float, linf: float, linf_x2: float
) -> PublishedAccuracy:
    return PublishedAccuracy(
        method,
        "ResNet-50-GELU",
        clean,
        linf,
        linf_x2,
        f"{PAPER}, Table 6",
        parameters=parameters,
    )


TABLE_2 = (
    _table_2("ResNet-50", "Salman et al. 2020", 63.9, (35.9, 13.2, 2.0, 13.7, 16.2)),
    _table_2("ResNet-50", "EasyRobust (Mao et al. 2022)", 64.7, (34.3, 11.4, 2.3, 16.4, 16.1)),
    _table_2("ResNet-50", "Liu et al. 2023", 65.5, (32.6, 9.5, 3.3, 17.9, 15.8)),
    _table_2("ResNet-50-GELU", "Bai et al. 2021", 67.8, (36.6, 10.8, 3.0, 16.8, 16.8)),
    _table_2("ResNet-50-GELU", "Debenedetti et al. 2023", 66.8, (35.6, 12.8, 3.6, 16.5, 17.1)),
    _table_2("ResNet-50-GELU", "vanilla AT (paper)", 67.1, (38.1, 12.6, 5.0, 21.6, 19.3)),
    _table_2("ResNet-50-GELU", "MPM (paper)", 67.8, (39.1, 13.6, 6.2, 24.3, 20.8)),
)
"""Models trained with l_inf 4/255 (Table 2)."""

TABLE_5_SEGMENTER = (
    PublishedAP(False, 37.2, 58.6, f"{PAPER}, Table 5"),
    PublishedAP(True, 40.7, 64.4, f"{PAPER}, Table 5"),
)
"""Part segmenter without and with the category filter (Table 5, left half)."""

TABLE_5_RECOGNISER = (
    _table_5("real part labels only", 65.5, 33.0, 9.4),
    _table_5("pseudo labels without category filter", 67.8, 38.8, 13.1),
    _table_5("pseudo labels with category filter", 67.8, 39.1, 13.6),
)
"""MPM by the quality of its part labels (Table 5, right half)."""

TABLE_6 = (
    _table_6("two-stage", 60.9, 67.3, 38.7, 13.0),
    _table_6("SV1", 25.6, 67.3, 36.9, 8.8),
    _table_6("SV2 with top-down path", 25.6, 67.6, 37.1, 11.7),
    _table_6("MPM (SV3 with top-down path)", 25.6, 67.8, 39.1, 13.6),
    _table_6("SV3 without top-down path", 25.6, 67.4, 36.9, 11.7),
)
"""Structures of the part branch (Table 6); SVn = supervision on the last n blocks."""


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
class PublishedSubset:
    """Accuracy on a subset of PartImageNet's categories (Tables S2, S3), percent.

    Attributes:
        method: Name of the method.
        clean: Accuracy on clean images.
        linf: Accuracy at l_inf 4/255; None where it is not given.
        linf_x2: Accuracy at l_inf 8/255, which all were trained with.
    """

    method: str
    clean: float
    linf: float | None
    linf_x2: float


TABLE_S2 = (
    PublishedSubset("ROCK (Li et al. 2023)", 54.5, 34.2, 17.3),
    PublishedSubset("MPM", 70.0, 42.3, 18.9),
)
"""The 125 categories of PartImageNet that ROCK was measured on (Table S2)."""

TABLE_S3 = (
    PublishedSubset("Sitawarin et al. 2023", 85.6, None, 39.4),
    PublishedSubset("MPM", 91.4, 72.3, 43.7),
)
"""The 11 super-categories of PartImageNet (Table S3)."""


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
