"""Names of lines and points beside the axes in place of a legend, none over another."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from scipy.optimize import isotonic_regression

from pipeline.drawing.dark_mode import INK_LIGHT

SIZE = 7  # points
LINE = 1.25 * SIZE  # points from one label to the next
REACH = 12  # points from the axes to the text, room for the lines that lead there


@dataclass(frozen=True)
class LineLabel:
    """What stands beside the axes.

    Attributes:
        x: Where the line ends, or the point lies, in data units.
        y: Likewise.
        text: Its name.
        colour: Its colour.
    """

    x: float
    y: float
    text: str
    colour: str


def label_lines(panel: Axes, labels: Sequence[LineLabel]) -> list[Annotation]:
    """Writes names right of the axes, each with a thin line to where it belongs.

    Call it when all else is drawn: limits of the axes that change later move the points, not the
    names. The texts are in ink, as many a colour of a line is too light to be read.

    Args:
        panel: Axes of a figure with `layout="constrained"`, which makes room.
        labels: One for each line or point, in any order.

    Returns:
        The texts in the order of `labels`.
    """
    if not labels:
        return []
    figure = panel.get_figure(root=True)
    assert figure is not None  # axes of a figure
    drawn = [
        panel.annotate(
            one.text,
            xy=(one.x, one.y),
            xytext=(1.0, 0.5),
            textcoords="axes fraction",
            fontsize=SIZE,
            color=INK_LIGHT,
            va="center_baseline",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": one.colour,
                "linewidth": 0.9,
                "shrinkA": 1,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
        )
        for one in labels
    ]
    figure.draw_without_rendering()  # the layout decides how high the axes are
    box = panel.get_window_extent()
    points = figure.dpi / 72
    wanted = panel.transData.transform([(one.x, one.y) for one in labels])[:, 1]
    places = spread(wanted, LINE * points, box.y0, box.y1)
    for text, place in zip(drawn, places, strict=True):
        text.set_position((1 + REACH * points / box.width, (place - box.y0) / box.height))
    return drawn


def room_for(texts: Sequence[str]) -> tuple[float, float]:
    """Width and height in inches that names take beside the axes, for the size of a figure."""
    longest = max(map(len, texts), default=0)
    return (REACH + 0.6 * SIZE * longest) / 72, LINE * len(texts) / 72


def spread(wanted: np.ndarray, gap: float, low: float, high: float) -> np.ndarray:
    """Places at least `gap` apart, as near to those wanted as can be in the sum of squares.

    Args:
        wanted: In any order and unit, float (N,).
        gap: Least distance.
        low: No place is below, if there is room enough.
        high: No place is above, likewise; else they reach below `low`.

    Returns:
        Float (N,), in the order of `wanted`.
    """
    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(wanted))
    # without the steps, "at least a gap apart" is "does not fall"
    fitted = isotonic_regression(wanted[order] - steps).x
    last = high - gap * (len(wanted) - 1)
    placed = np.minimum(np.maximum(fitted, low), last) + steps
    places = np.empty_like(placed)
    places[order] = placed
    return places
