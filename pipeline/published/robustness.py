"""Recognition under AutoAttack."""

from dataclasses import dataclass

from pipeline.published.paper import PAPER


@dataclass(frozen=True)
class PublishedAccuracy:
    """One row of a robustness table of the paper.

    Attributes:
        method: Name of the method as the paper gives it.
        architecture: Network at inference.
        clean: Accuracy on clean images, percent.
        linf: AutoAttack accuracy at l_inf 4/255, percent; None where the table does not say.
        linf_x2: AutoAttack accuracy at l_inf 8/255, percent; None as above.
        source: Paper and table.
        l1: AutoAttack accuracy at l_1 75, percent; None where the table has no such column.
        l2: AutoAttack accuracy at l_2 2, percent; None where the table has no such column.
        average: Mean of the robust accuracies that the table has, percent; None as above.
        parameters: Parameters at inference in millions; None where the table does not say.
        gflops: Multiply-adds at inference in thousand millions; None as above.
    """

    method: str
    architecture: str
    clean: float
    linf: float | None
    linf_x2: float | None
    source: str
    l1: float | None = None
    l2: float | None = None
    average: float | None = None
    parameters: float | None = None
    gflops: float | None = None


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


def _table_s6(
    method: str, clean: float, linf: float, l1: float, l2: float, average: float
) -> PublishedAccuracy:
    source = f"{PAPER}, Table S6"
    return PublishedAccuracy(
        method, "ResNet-50-GELU", clean, linf, None, source, l1, l2, average=average
    )


def _table_s7(
    architecture: str,
    cost: tuple[float, float],
    method: str,
    clean: float,
    linf: float | None,
    linf_x2: float,
) -> PublishedAccuracy:
    source = f"{PAPER}, Table S7"
    parameters, gflops = cost
    return PublishedAccuracy(
        method, architecture, clean, linf, linf_x2, source, parameters=parameters, gflops=gflops
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


TABLE_S6 = (
    _table_s6("MPM with object masks", 67.5, 37.3, 6.0, 23.6, 22.3),
    _table_s6("MPM with part masks", 67.8, 39.1, 6.2, 24.3, 23.2),
)
"""Object masks in place of part masks (Table S6)."""

_WIDE, _RESNEXT = ("WideResNet-28-10", (36.6, 21.0)), ("ResNeXt-50", (23.4, 4.3))
TABLE_S7 = (
    _table_s7(*_WIDE, "Gowal et al., validation images leak", 61.0, None, 26.7),
    _table_s7(*_WIDE, "Wang et al., validation images leak", 65.2, 48.3, 31.3),
    _table_s7(*_WIDE, "Wang et al., ImageNet val images", 57.6, 38.4, 28.4),
    _table_s7(*_RESNEXT, "vanilla AT", 67.9, 48.0, 27.6),
    _table_s7(*_RESNEXT, "MPM", 69.0, 48.9, 28.5),
)
"""Tiny-ImageNet (Table S7); WideResNets with generated training images, at 64 pixels."""


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
