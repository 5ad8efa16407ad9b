"""Drawing of charts as SVG that a page embeds."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "svg.hashsalt": "partrobust",
}


class Drawing:
    """A figure while it is drawn, and its `data:` address afterwards.

    Args:
        figure: what is drawn on.
    """

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self.uri = ""


@contextmanager
def svg_drawing(width: float, height: float) -> Iterator[Drawing]:
    """A figure in the pages' style that has its `data:` address when the block ends.

    Args:
        width: in inches.
        height: in inches.
    """
    with matplotlib.rc_context(STYLE):
        drawing = Drawing(Figure(figsize=(width, height), layout="constrained"))
        FigureCanvasSVG(drawing.figure)
        yield drawing
        buffer = BytesIO()
        drawing.figure.savefig(buffer, format="svg", metadata={"Date": None})
        drawing.uri = svg_uri(buffer.getvalue())


def svg_uri(svg: bytes) -> str:
    """An SVG file as a `data:` address."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
