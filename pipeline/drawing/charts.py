"""Drawing of charts as SVG that a page embeds."""

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from pipeline.drawing.dark_mode import INK_LIGHT, add_dark_mode

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d9dee3",
    "svg.hashsalt": "partrobust",
    # black would be left out of the file and could not change with the reader's setting
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"),
        INK_LIGHT,
    ),
}


class Drawing:
    """A figure while it is drawn, and its SVG file afterwards.

    Args:
        figure: what is drawn on.
    """

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self.svg = b""

    @property
    def uri(self) -> str:
        """The SVG file as a `data:` address."""
        return svg_uri(self.svg)


@contextmanager
def svg_drawing(
    width: float, height: float, style: Mapping[str, Any] | None = None
) -> Iterator[Drawing]:
    """A figure in the pages' style that is an SVG file when the block ends, light and dark.

    The same figure always gives the same bytes.

    Args:
        width: in inches.
        height: in inches.
        style: settings of matplotlib beside `STYLE`.
    """
    with matplotlib.rc_context(STYLE | dict(style or {})):
        drawing = Drawing(Figure(figsize=(width, height), layout="constrained"))
        FigureCanvasSVG(drawing.figure)
        yield drawing
        buffer = BytesIO()
        drawing.figure.savefig(buffer, format="svg", metadata={"Date": None})
        drawing.svg = add_dark_mode(buffer.getvalue())


def svg_uri(svg: bytes) -> str:
    """An SVG file as a `data:` address."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
