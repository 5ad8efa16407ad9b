"""Learning curves of a run as one small SVG."""

from collections.abc import Mapping

import numpy as np

from datamodules.files.errors import UserError
from pipeline.drawing.charts import svg_drawing
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
    with svg_drawing(3.1 * COLUMNS, 2.2 * rows) as drawing:
        axes = np.atleast_1d(drawing.figure.subplots(rows, COLUMNS)).ravel()
        for axis in axes[len(groups) :]:
            axis.set_visible(False)
        for axis, (name, group) in zip(axes, groups.items(), strict=False):
            for tag, curve in group.items():
                thin = _thin(curve)
                marker = "o" if len(thin.steps) < 30 else ""
                axis.plot(
                    thin.steps, thin.values, label=tag, marker=marker, markersize=2.5, linewidth=1.2
                )
            axis.set_title(name, fontsize=9)
            axis.set_xlabel("step")
            if len(group) > 1:
                axis.legend(frameon=False, fontsize=7)
            else:
                axis.set_title(next(iter(group)), fontsize=9)
    return drawing.uri
