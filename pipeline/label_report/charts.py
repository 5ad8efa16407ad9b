"""Charts of the label report, as SVG."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pipeline.drawing.charts import svg_drawing
from pipeline.drawing.palette import BLUE, GREEN, GREY, ORANGE

NAMED_OBJECTS = 40  # more categories than this are drawn as one curve
LINES = ("-", "--")

Runs = Mapping[str, Mapping[str, Any]]


def draw_thresholds(runs: Runs, min_score: float) -> str:
    """Quality and share of labelled images over the least score.

    Args:
        runs: title of a run to its figures, see `summarise`.
        min_score: marked by a line.

    Returns:
        The chart as a `data:` address.
    """
    panels = (
        ("mIoU of the parts", "miou", BLUE),
        ("coverage of the object: IoU", "coverage", ORANGE),
        ("coverage of the object: recall", "recall", ORANGE),
        ("share of all images with a part", "labelled_share", GREEN),
    )
    with svg_drawing(9.6, 2.5) as drawing:
        for axis, (title, key, colour) in zip(drawing.figure.subplots(1, 4), panels, strict=True):
            for (name, run), line in zip(runs.items(), LINES, strict=False):
                rows = [row for row in run["thresholds"] if row[key] is not None]
                scores = [row["min_score"] for row in rows]
                values = [row[key] for row in rows]
                axis.plot(scores, values, line, color=colour, label=name, linewidth=1.4)
            axis.axvline(min_score, color=GREY, linewidth=0.8, linestyle=":")
            top = max(row[key] or 0 for run in runs.values() for row in run["thresholds"])
            axis.set(xlim=(0, 1), ylim=(0, 1.02 if top > 0.5 else None), xlabel="least score")
            axis.set_title(title, fontsize=9)
            if len(runs) > 1:
                axis.legend(frameon=False, fontsize=7)
    return drawing.uri


def draw_calibration(runs: Runs) -> str:
    """Reliability diagrams: precision at IoU 0.5 over score, and how many parts each bin has.

    Args:
        runs: title of a run to its figures, see `summarise`.

    Returns:
        The chart as a `data:` address.
    """
    with svg_drawing(3.6 * len(runs), 3.6) as drawing:
        grid = drawing.figure.subplots(
            2, len(runs), squeeze=False, sharex=True, height_ratios=(3, 1)
        )
        for column, (name, run) in enumerate(runs.items()):
            bins = [one for one in run["calibration"] if one["count"]]
            left = [one["low"] for one in bins]
            width = [one["high"] - one["low"] for one in bins]
            upper, lower = grid[:, column]
            precision = [one["precision"] for one in bins]
            upper.bar(left, precision, width, align="edge", color=BLUE, edgecolor="white")
            upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
            scores = [one["score"] for one in bins]
            upper.plot(scores, precision, "o", color=ORANGE, markersize=3.5, label="mean score")
            error = "none" if run["ece"] is None else f"{run['ece']:.3f}"
            upper.set_title(f"{name}: ECE {error}", fontsize=9)
            upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="" if column else "precision at IoU 0.5")
            counts = [one["count"] for one in bins]
            lower.bar(left, counts, width, align="edge", color=GREY, edgecolor="white")
            lower.set(xlabel="score", ylabel="" if column else "pseudo parts")
            if counts and max(counts) > 30 * min(counts):
                lower.set_yscale("log")
    return drawing.uri


def draw_objects(objects: Sequence[Mapping[str, Any]]) -> str:
    """Images with and without labels by object category.

    Args:
        objects: the table `objects` of a run, at least one row.

    Returns:
        The chart as a `data:` address: named bars, or for many categories the sorted shares.
    """
    kinds = (("labelled", BLUE), ("empty", ORANGE), ("errors", "#111111"))
    named = len(objects) <= NAMED_OBJECTS
    with svg_drawing(8, 0.7 + 0.2 * len(objects) if named else 2.8) as drawing:
        axis = drawing.figure.subplots()
        if named:
            names = [row["name"] for row in objects]
            start = np.zeros(len(objects))
            for kind, colour in kinds:
                values = np.array([row[kind] for row in objects])
                axis.barh(names, values, left=start, color=colour, label=kind, height=0.75)
                start += values
            axis.invert_yaxis()
            axis.grid(axis="y", visible=False)
            axis.set_xlabel("images")
            axis.margins(y=0.01)
            drawing.figure.legend(
                *axis.get_legend_handles_labels(), loc="outside upper right", ncols=3, frameon=False
            )
        else:
            shares = np.sort([row["labelled"] / row["images"] for row in objects])
            axis.fill_between(np.arange(len(shares)), shares, color=BLUE, alpha=0.75, linewidth=0)
            axis.set(
                xlim=(0, len(shares) - 1),
                ylim=(0, 1.02),
                xlabel="object categories, by share",
                ylabel="share of images with a part",
            )
    return drawing.uri


def draw_histograms(runs: Runs) -> str:
    """Scores of all pseudo parts, and how many parts an image has.

    Args:
        runs: title of a run to its figures, see `summarise`.

    Returns:
        The chart as a `data:` address.
    """
    with svg_drawing(8, 2.4) as drawing:
        left, right = drawing.figure.subplots(1, 2)
        for (name, run), line, colour in zip(runs.items(), LINES, (BLUE, ORANGE), strict=False):
            counts = np.array(run["score_histogram"])
            _stairs(left, counts, np.linspace(0, 1, len(counts) + 1), name, line, colour)
            parts = np.array(run["parts_per_image"])
            last = int(np.flatnonzero(parts).max(initial=0)) + 1
            _stairs(right, parts[:last], np.arange(last + 1) - 0.5, name, line, colour)
        left.set(xlabel="score", ylabel="parts of any score", yscale="log", xlim=(0, 1))
        right.set(xlabel="parts kept in an image", ylabel="images")
        if len(runs) > 1:
            left.legend(frameon=False, fontsize=7)
    return drawing.uri


def _stairs(
    axis: Axes, counts: np.ndarray, edges: np.ndarray, name: str, line: str, colour: str
) -> None:
    axis.stairs(counts, edges, label=name, color=colour, linestyle=line, linewidth=1.3)
