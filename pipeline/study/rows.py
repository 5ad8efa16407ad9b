"""What the study compares, and what the paper says of it (Tables 2, 5, 6 and S6)."""

from collections.abc import Sequence
from dataclasses import dataclass

from datamodules.files.errors import UserError
from pipeline.published import TABLE_2, TABLE_5_RECOGNISER, TABLE_6, TABLE_S6, PublishedAccuracy


@dataclass(frozen=True)
class Row:
    """One way to train the recogniser.

    Attributes:
        name: of the run folder.
        title: in tables.
        overlays: files of `configs/stage3_mpm/` over `small.yaml`, without `.yaml`.
        filtered: whether its pseudo labels come from a segmenter with the category filter.
        autoattack: whether AutoAttack measures it too.
        pseudo_labels: whether it learns from a segmenter's labels.
        published: the paper's row, at another scale; None where it has none.
    """

    name: str
    title: str
    overlays: tuple[str, ...]
    published: PublishedAccuracy | None = None
    filtered: bool = True
    autoattack: bool = False
    pseudo_labels: bool = True


@dataclass(frozen=True)
class Claim:
    """An order of two rows that the paper reports.

    Attributes:
        better: name of a row.
        worse: name of a row.
        source: table of the paper.
        strict: whether better means above, not only at least as good.
    """

    better: str
    worse: str
    source: str
    strict: bool = True


def _of(table: Sequence[PublishedAccuracy], method: str) -> PublishedAccuracy:
    return next(row for row in table if row.method == method)


ROWS = (
    Row(
        "vanilla",
        "vanilla AT",
        ("vanilla",),
        _of(TABLE_2, "vanilla AT (paper)"),
        autoattack=True,
        pseudo_labels=False,
    ),
    Row("mpm", "MPM (SV3)", (), _of(TABLE_2, "MPM (paper)"), autoattack=True),
    Row("two_stage", "two-stage (Downsampled)", ("downsampled",), _of(TABLE_6, "two-stage")),
    Row("sv1", "SV1", ("sv1",), _of(TABLE_6, "SV1")),
    Row("sv2", "SV2", ("sv2",), _of(TABLE_6, "SV2 with top-down path")),
    Row(
        "sv3_without_top_down",
        "SV3 without top-down",
        ("sv3_without_top_down",),
        _of(TABLE_6, "SV3 without top-down path"),
    ),
    Row(
        "without_filter",
        "labels without filter",
        (),
        _of(TABLE_5_RECOGNISER, "pseudo labels without category filter"),
        filtered=False,
    ),
    Row(
        "real_labels",
        "real labels only",
        ("real_labels",),
        _of(TABLE_5_RECOGNISER, "real part labels only"),
        pseudo_labels=False,
    ),
    Row("object_masks", "object masks", ("object_masks",), _of(TABLE_S6, "MPM with object masks")),
    *(
        Row(
            f"scores_{tenths}",
            f"labels of score 0.{tenths} or more",
            (f"scores_{tenths}",),
        )
        for tenths in (3, 5, 7)
    ),
    *(
        Row(f"part_weight_0{tenths}", f"part loss times 0.{tenths}", (f"part_weight_0{tenths}",))
        for tenths in (1, 3)
    ),
    Row("mpm_one_step", "MPM, one step", ("one_step",)),
    Row("mpm_fast", "MPM, fast", ("fast",), autoattack=True),
    Row(
        "vanilla_fast",
        "vanilla AT, fast",
        ("vanilla", "fast"),
        autoattack=True,
        pseudo_labels=False,
    ),
)
"""All rows, those first that say most when the study is cut."""

CLAIMS = (
    Claim("mpm", "vanilla", "Table 2"),
    Claim("mpm", "sv2", "Table 6"),
    Claim("sv2", "sv1", "Table 6"),
    Claim("mpm", "sv3_without_top_down", "Table 6"),
    Claim("mpm", "two_stage", "Table 6", strict=False),
    Claim("mpm", "without_filter", "Table 5", strict=False),
    Claim("mpm", "real_labels", "Table 5"),
    Claim("mpm", "object_masks", "Table S6"),
)
"""The orders that the paper reports."""

FAST = (("mpm_one_step", "mpm"), ("mpm_fast", "mpm"), ("vanilla_fast", "vanilla"))
"""Rows at a part of the cost, and the rows that they should equal."""


def chosen_rows(names: Sequence[str] | None) -> tuple[Row, ...]:
    """The rows of some names, in the order of `ROWS`; all for None.

    Raises:
        UserError: if a name is unknown.
    """
    known = [row.name for row in ROWS]
    if unknown := sorted(set(names or ()) - set(known)):
        raise UserError(f"unknown rows {', '.join(unknown)}: give some of {', '.join(known)}")
    return tuple(row for row in ROWS if names is None or row.name in names)
