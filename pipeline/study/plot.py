"""The study as one picture: accuracies of all rows, means and intervals."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from datamodules.files.atomic_files import written_whole
from pipeline.drawing.charts import STYLE
from pipeline.drawing.palette import BLUE, ORANGE
from pipeline.study.results import THREATS, Result
from pipeline.study.rows import Row
from pipeline.study.summary import accuracy

COLOURS = {"vanilla": ORANGE, "mpm": BLUE}
OTHER = "#555555"


def draw_study(results: Sequence[Result], rows: Sequence[Row], path: Path) -> None:
    """Draws one panel a threat, one line a row.

    Dots are trainings, a bar is the 95 % interval of their mean, the dashed line vanilla's mean.
    Rows without a run say so.

    Args:
        results: of the study.
        rows: rows to show, from above.
        path: PNG file to write.
    """
    shown = [name for name in THREATS if any(name in result.outcomes for result in results)]
    with matplotlib.rc_context(STYLE | {"axes.grid.axis": "x"}):
        size = (1.8 + 2.2 * max(1, len(shown)), 1.2 + 0.3 * len(rows))
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, max(1, len(shown)), sharey=True, squeeze=False)[0]
        for panel, threat in zip(panels, shown, strict=False):
            _draw_panel(panel, results, rows, threat)
        panels[0].set_yticks(range(len(rows)), [row.title for row in rows])
        panels[0].set_ylim(len(rows) - 0.5, -0.5)
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as partial:
            figure.savefig(partial, format="png", metadata={"Software": None})


def _draw_panel(panel: Any, results: Sequence[Result], rows: Sequence[Row], threat: str) -> None:
    panel.set_title(THREATS[threat], fontsize=9)
    panel.set_xlabel("accuracy in %")
    if vanilla := accuracy(results, "vanilla", threat):
        panel.axvline(vanilla.mean, color=COLOURS["vanilla"], linestyle="--", linewidth=0.8)
    for place, row in enumerate(rows):
        colour = COLOURS.get(row.name, OTHER)
        mean = accuracy(results, row.name, threat)
        if mean is None:
            ran = any(result.row == row.name and result.outcomes for result in results)
            if not ran and (row.autoattack or threat != "autoattack"):
                panel.annotate(
                    "not run",
                    (0.5, place),
                    xycoords=("axes fraction", "data"),
                    ha="center",
                    va="center",
                    color="#999999",
                )
            continue
        runs = [r for r in results if r.row == row.name and threat in r.outcomes]
        dots = [100 * run.accuracies[threat] for run in runs]
        panel.plot(dots, [place] * len(dots), "o", color=colour, alpha=0.35, markersize=3)
        half = 0.0 if math.isnan(mean.half) else mean.half
        panel.errorbar(mean.mean, place, xerr=half, fmt="D", color=colour, markersize=4, capsize=2)
