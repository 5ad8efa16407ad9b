"""Learning curves of a run as one small SVG."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np

from datamodules.files.errors import UserError
from pipeline.drawing.charts import svg_drawing
from pipeline.drawing.line_labels import LineLabel, label_lines
from pipeline.drawing.palette import SERIES
from pipeline.report.reading.curves import Curve

MAX_POINTS = 400
COLUMNS = 3


def group_curves(curves: Mapping[str, Curve]) -> dict[str, dict[str, Curve]]:
    """Groups curves that belong on the same axes.

    Tags with the same name after the slash share axes (`train/loss`, `val/loss`), and so do a
    metric and its variant with the category filter (`val/segm_AP`, `val/segm_AP_filtered`).

    Args:
        curves: Tag to curve.

    Returns:
        Name of the axes to its curves.
    """
    groups: dict[str, dict[str, Curve]] = {}
    for tag, curve in curves.items():
        name = tag.rsplit("/", 1)[-1]
        for suffix in ("_step", "_epoch", "_filtered"):
            name = name.removesuffix(suffix)
        name = "learning rate" if tag.startswith("lr-") else name
        groups.setdefault(name, {})[tag] = curve
    # Losses first, then by name
    return dict(sorted(groups.items(), key=lambda item: ("loss" not in item[0], item[0])))


def _thin(curve: Curve) -> Curve:
    """Means over equal runs of points, so that long trainings stay small in the page."""
    if len(curve.steps) <= MAX_POINTS:
        return curve
    chunks = np.array_split(np.arange(len(curve.steps)), MAX_POINTS)
    return Curve(
        np.array([curve.steps[chunk[-1]] for chunk in chunks]),
        np.array([curve.values[chunk].mean() for chunk in chunks]),
    )


def draw_curves(curves: Mapping[str, Curve]) -> str:
    """Draws curves as small multiples.

    Args:
        curves: Tag to curve, at least one.

    Returns:
        The SVG as a `data:` address, with nothing random or dated in it.

    Raises:
        UserError: If there is no curve.
    """
    groups = group_curves(curves)
    if not groups:
        raise UserError("no curves to draw")
    rows = -(-len(groups) // COLUMNS)
    with svg_drawing(3.5 * COLUMNS, 2.2 * rows) as drawing:
        axes = np.atleast_1d(drawing.figure.subplots(rows, COLUMNS)).ravel()
        for axis in axes[len(groups) :]:
            axis.set_visible(False)
        for axis, (name, group) in zip(axes, groups.items(), strict=False):
            labels = []
            for (tag, curve), colour in zip(group.items(), cycle(SERIES), strict=False):
                thin = _thin(curve)
                marker = "o" if len(thin.steps) < 30 else ""
                axis.plot(
                    thin.steps, thin.values, color=colour, marker=marker, markersize=2.5, lw=1.2
                )
                end = float(thin.steps[-1]), float(thin.values[-1])
                labels.append(LineLabel(*end, line_name(tag, name), colour))
            axis.set_title(name if len(group) > 1 else next(iter(group)), fontsize=9)
            axis.set_xlabel("step")
            label_lines(axis, labels if len(group) > 1 else [])
    return drawing.uri


def line_name(tag: str, group: str) -> str:
    """What tells a line from the others on its axes, such as `val filtered`."""
    rest = tag.removeprefix("lr-") if group == "learning rate" else tag.replace(group, "", 1)
    return " ".join(rest.replace("_", " ").replace("/", " ").split()) or tag
