"""Figures of the part segmenter by category, as rows for files, terminals and reports."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from datamodules.annotations.part_vocabulary import PartVocabulary
from modules.metrics.coco_ap import AveragePrecision, MaskMetrics, mean_precision

Row = dict[str, Any]
DETECTED = "detected_object_"  # begins the figures of objects that are classes of their own


def part_rows(
    vocabulary: PartVocabulary,
    metrics: Mapping[str, MaskMetrics],
    iou: Mapping[str, Mapping[int, float]],
) -> list[Row]:
    """A row for every part category, in the order of the vocabulary.

    Args:
        vocabulary: names of the parts.
        metrics: AP by suffix (`""`, `"_filtered"`).
        iou: IoU in composite maps by suffix and part id.

    Returns:
        Rows of `object`, `part`, `images`, `masks` and the figures, in [0, 1] or None.
    """
    rows = []
    truth = next(iter(metrics.values()))
    for part, name in enumerate(vocabulary.parts, start=1):
        object_name, _, part_name = name.rpartition(":")
        row: Row = {"object": object_name, "part": part_name}
        row |= {"images": truth.images.get(part, 0), "masks": truth.masks.get(part, 0)}
        for suffix, one in metrics.items():
            row |= _figures(one.categories.get(part, AveragePrecision()), suffix)
            row[f"IoU{suffix}"] = iou.get(suffix, {}).get(part)
        rows.append(row)
    return rows


def object_rows(
    vocabulary: PartVocabulary, parts: Sequence[Row], metrics: Mapping[str, MaskMetrics]
) -> list[Row]:
    """A row for every object category that has parts: means over its parts, and its own AP.

    Args:
        vocabulary: names of the objects.
        parts: what `part_rows` gives.
        metrics: AP of whole objects by suffix, by class label.
    """
    members: dict[str, list[Row]] = {}
    for row in parts:
        members.setdefault(row["object"], []).append(row)
    truth = next(iter(metrics.values()))
    rows: list[Row] = []
    for name, own in members.items():
        label = vocabulary.objects.index(name)
        row = {"object": name, "parts": len(own), "images": truth.images.get(label, 0)}
        row["masks"] = sum(part["masks"] for part in own)
        for suffix, one in metrics.items():
            row |= _figures(mean_precision([_read(part, suffix) for part in own]), suffix)
            known = [part[f"IoU{suffix}"] for part in own if part[f"IoU{suffix}"] is not None]
            row[f"IoU{suffix}"] = sum(known) / len(known) if known else None
            whole = one.categories.get(label, AveragePrecision())
            row |= {f"object_{key}": value for key, value in _figures(whole, suffix).items()}
        rows.append(row)
    return rows


def detected_object_rows(
    vocabulary: PartVocabulary, rows: Sequence[Row], metrics: Mapping[str, MaskMetrics]
) -> list[Row]:
    """Adds the AP of objects that were detected as such to the rows of objects.

    Args:
        vocabulary: names of the objects.
        rows: what `object_rows` gives; empty where no parts were detected.
        metrics: AP of detected objects by suffix, by class label.

    Returns:
        A row for every object category that has parts: `object`, `images` and `masks` of objects
        where `rows` has none of it, and `detected_object_AP`, ...
    """
    names = dict.fromkeys(part.rpartition(":")[0] for part in vocabulary.parts)
    known = {row["object"]: row for row in rows}
    truth = next(iter(metrics.values()))
    added = []
    for name in names:
        label = vocabulary.objects.index(name)
        plain = {"images": truth.images.get(label, 0), "masks": truth.masks.get(label, 0)}
        row = known.get(name, {"object": name} | plain)
        for suffix, one in metrics.items():
            figures = _figures(one.categories.get(label, AveragePrecision()), suffix)
            row = row | {f"{DETECTED}{key}": value for key, value in figures.items()}
        added.append(row)
    return added


def extremes(rows: Sequence[Row], count: int, prefix: str = "") -> tuple[list[Row], list[Row]]:
    """The worst and the best rows by AP with the filter, then by AP50; no row is in both.

    Args:
        rows: of one kind.
        count: at most so many of either end.
        prefix: of the names of AP, `DETECTED` for detected objects.
    """
    keys = f"{prefix}AP_filtered", f"{prefix}AP50_filtered"
    measured = [row for row in rows if row[keys[0]] is not None]
    ranked = sorted(measured, key=lambda row: tuple(row[key] for key in keys))
    return ranked[:count], ranked[count:][::-1][:count]


def print_worst(path: Path, count: int) -> None:
    """Prints the worst parts of a `per_category.json`."""
    worst, _ = extremes(json.loads(path.read_text())["parts"], count)
    table = Table(title=f"Parts of least AP, all in {path}", title_justify="left")
    for title in ("object", "part"):
        table.add_column(title, overflow="fold")
    for title in ("images", "masks", "AP", "AP50", "AP filtered", "AP50 filtered"):
        table.add_column(title, justify="right")
    for row in worst:
        figures = [row[key] for key in ("AP", "AP50", "AP_filtered", "AP50_filtered")]
        texts = [f"{100 * value:.1f}" for value in figures]
        table.add_row(row["object"], row["part"], str(row["images"]), str(row["masks"]), *texts)
    if worst:
        Console().print(table)


def _figures(precision: AveragePrecision, suffix: str) -> dict[str, float | None]:
    values = asdict(precision).items()
    return {f"{key}{suffix}": value if value >= 0 else None for key, value in values}


def _read(row: Row, suffix: str) -> AveragePrecision:
    values = {key: row[f"{key}{suffix}"] for key in asdict(AveragePrecision())}
    return AveragePrecision(**{k: -1.0 if v is None else v for k, v in values.items()})
