"""Accuracy against milliseconds, the Pareto front filled."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.drawing.charts import svg_drawing
from pipeline.drawing.line_labels import LineLabel, label_lines, room_for
from pipeline.drawing.palette import SERIES
from pipeline.report.cells import Cell
from pipeline.report.deploy.candidates import ATTACK, MILLISECONDS, Field
from pipeline.report.robustness_tables import CLEAN


def draw_costs(field: Field, dominated: Mapping[str, Sequence[str]]) -> str:
    """A panel for clean images and one for the attack, a `data:` address.

    Args:
        field: all models.
        dominated: by name, the models that dominate it.

    Returns:
        Empty where no model has both an accuracy and a time.
    """
    names = list(field.candidates)
    shown = {
        kind: [name for name in names if _pair(field, name, kind) is not None]
        for kind in (CLEAN, ATTACK)
    }
    panels = [kind for kind, found in shown.items() if found]
    if not panels:
        return ""
    wide, high = room_for(names)
    with svg_drawing((3.2 + wide) * len(panels), max(3.0, high + 0.7)) as drawing:
        axes = drawing.figure.subplots(1, len(panels), squeeze=False)[0]
        for panel, kind in zip(axes, panels, strict=True):
            labels = []
            for name in shown[kind]:
                pair = _pair(field, name, kind)
                assert pair is not None
                (x, x_error), (y, y_error) = map(_point, pair)
                colour = SERIES[names.index(name) % len(SERIES)]
                fill = colour if not dominated[name] else "none"
                panel.errorbar(
                    x, y, xerr=x_error, yerr=y_error, color=colour, marker="o", markersize=5,
                    markerfacecolor=fill, linestyle="", elinewidth=0.8, capsize=2,
                )  # fmt: skip
                labels.append(LineLabel(x, y, name, colour))
            panel.set_xlabel("ms")
            panel.set_ylabel(f"{field.attack if kind == ATTACK else kind}, %")
            label_lines(panel, labels)
    return drawing.uri


def _pair(field: Field, name: str, kind: str) -> tuple[Cell, Cell] | None:
    cells = field.cell(name, MILLISECONDS), field.cell(name, kind)
    return None if any(cell.value is None for cell in cells) else cells


def _point(cell: Cell) -> tuple[float, np.ndarray]:
    """The figure and the distances to the ends of its interval, (2, 1)."""
    value = cell.value or 0.0
    low, high = (value if end is None else end for end in (cell.low, cell.high))
    return value, np.clip(np.array([[value - low], [high - value]]), 0, None)
