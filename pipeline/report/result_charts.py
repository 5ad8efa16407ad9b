"""Charts of the evaluation, as SVG: radius, steps, attacks, corruptions, trade-off."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pipeline.drawing.charts import svg_drawing
from pipeline.drawing.line_labels import LineLabel, label_lines, room_for
from pipeline.drawing.palette import GREY, SERIES
from pipeline.report.cells import Cell, Table
from pipeline.report.reading.evaluations import NORMS, Evaluation, ThreatResult

MARKERS = "osD^vP*X"
LINES = ("-", "--", ":", "-.")
PANEL = (2.1, 2.6)  # inches, without the names of lines
WIDTH = 11  # inches, that of the page


def draw_radius(evaluations: Sequence[Evaluation]) -> str:
    """Accuracy against eps, a panel for each norm; attacks at one radius are single points.

    Clean accuracy is the point at 0 of every curve.

    Returns:
        A `data:` address; empty where nothing was attacked.
    """
    attacked = [threat for one in evaluations for threat in one.threats if threat.norm]
    norms = [norm for norm in NORMS if any(threat.norm == norm for threat in attacked)]
    if not norms:
        return ""
    names = {(one.name, threat.attack) for one in evaluations for threat in one.threats}
    wide, high = _panel([", ".join(name) for name in names])
    columns = max(1, min(len(norms), int(WIDTH // wide)))
    rows = -(-len(norms) // columns)
    with svg_drawing(wide * max(2, columns), high * rows) as drawing:
        panels = drawing.figure.subplots(rows, columns, squeeze=False).ravel()
        for panel in panels[len(norms) :]:
            panel.set_visible(False)
        for panel, norm in zip(panels, norms, strict=False):
            families = list(dict.fromkeys(t.attack for t in attacked if t.norm == norm))
            labels = []
            for place, one in enumerate(evaluations):
                clean = [threat for threat in one.threats if threat.title == "clean"][:1]
                colour = SERIES[place % len(SERIES)]
                for index, attack in enumerate(families):
                    mine = [t for t in one.threats if (t.norm, t.attack) == (norm, attack)]
                    if not mine:
                        continue
                    shift = 0.012 * (place * len(families) + index)
                    style: dict[str, Any] = {"color": colour}
                    style["marker"] = MARKERS[index % len(MARKERS)]
                    if len(mine) == 1:
                        end = _curve(panel, mine, norm, shift, **style)
                    else:
                        end = _curve(panel, [*clean, *mine], norm, **style)
                    labels.append(LineLabel(*end, f"{one.name}, {attack}", colour))
                if clean:
                    _curve(panel, clean, norm, 0.012 * place, color=colour, marker="_")
            panel.set_xlabel("eps · 255" if norm == "linf" else "eps")
            panel.set_title(NORMS[norm])
            panel.set_ylim(0, None)
            label_lines(panel, labels)
        panels[0].set_ylabel("accuracy, %")
    return drawing.uri


def draw_steps(evaluations: Sequence[Evaluation]) -> str:
    """Success of PGD over its number of steps, a `data:` address; empty without two numbers."""
    curves: dict[tuple[str, str, float], list[ThreatResult]] = {}
    for one in evaluations:
        for threat in one.threats:
            if threat.norm and threat.attack.startswith("PGD") and threat.steps:
                curves.setdefault((one.name, threat.norm, threat.eps), []).append(threat)
    curves = {key: found for key, found in curves.items() if len(found) > 1}
    if not curves:
        return ""
    titles = {key: f"{key[0]}, {t[0].title.split(' ', 1)[1]}" for key, t in curves.items()}
    wide, high = _panel(list(titles.values()))
    with svg_drawing(wide + 2.5, high) as drawing:
        panel = drawing.figure.subplots()
        labels = []
        for place, (key, found) in enumerate(curves.items()):
            found = sorted(found, key=lambda threat: threat.steps or 0)
            success = [100 - (threat.cell.value or 0) for threat in found]
            colour = SERIES[place % len(SERIES)]
            steps = [threat.steps or 0 for threat in found]
            panel.plot(steps, success, color=colour, marker="o")
            labels.append(LineLabel(steps[-1], success[-1], titles[key], colour))
        panel.set_xlabel("steps of PGD")
        panel.set_ylabel("images not right, %")
        label_lines(panel, labels)
    return drawing.uri


def draw_attacks(table: Table | None) -> str:
    """Share of images that still stand after each attack of AutoAttack in turn.

    Args:
        table: What `broken_table` gave.

    Returns:
        A `data:` address; empty without a table.
    """
    if table is None:
        return ""
    names = ["all", *(column.title for column in table.columns[:-1])]
    wide, high = _panel([row.name for row in table.rows])
    with svg_drawing(max(3.0, 1.1 * len(names)) + wide, high + 0.4) as drawing:
        panel = drawing.figure.subplots()
        labels = []
        for place, row in enumerate(table.rows):
            standing = [100, *(100 - np.cumsum([_value(cell) for cell in row.cells[:-1]]))]
            colour = SERIES[place % len(SERIES)]
            line = LINES[place % len(LINES)]  # equal outcomes stay apart
            panel.plot(names, standing, color=colour, linestyle=line, marker="o", markersize=3)
            labels.append(LineLabel(len(names) - 1, standing[-1], row.name, colour))
        panel.set_ylabel("standing after it, %")
        panel.set_ylim(0, 102)
        label_lines(panel, labels)
    return drawing.uri


def draw_corruptions(table: Table) -> str:
    """Bars of every corruption for every measured model, beside the paper's rows in grey.

    Args:
        table: What `corruption_table` gave.

    Returns:
        A `data:` address; empty where no corruption was measured.
    """
    if not table.has_values:
        return ""
    places = [i for i, one in enumerate(table.columns) if one.title != "mCE"]
    names = [table.columns[place].title for place in places]
    rows = [r for r in table.measured if any(c and c.value is not None for c in r.cells)]
    width = 0.84 / len(rows)
    with svg_drawing(9.6, PANEL[1] + 0.9) as drawing:
        panel = drawing.figure.subplots()
        for index, row in enumerate(rows):
            x = np.arange(len(places)) - 0.42 + width * (index + 0.5)
            values = [_value(row.cells[place], np.nan) for place in places]
            bars: dict[str, Any] = {"color": SERIES[index % len(SERIES)], "label": row.name}
            panel.bar(x, values, width, yerr=_errors(row.cells, places), ecolor="#555", **bars)
        for marker, row in zip(MARKERS, table.published, strict=False):
            values = [_value(row.cells[place], np.nan) for place in places]
            style: dict[str, Any] = {"marker": marker, "markersize": 3, "color": GREY}
            style["linestyle"] = ""
            panel.plot(np.arange(len(places)), values, label=f"{row.name}, published", **style)
        panel.set_xticks(np.arange(len(places)), names, rotation=40, ha="right")
        panel.set_ylabel("accuracy, %")
        drawing.figure.legend(loc="outside upper left", ncols=5, frameon=False)
    return drawing.uri


def draw_trade_off(table: Table, column: str) -> str:
    """Robust against clean accuracy over models; published ones in grey.

    Args:
        table: What `result_table` gave.
        column: Title of the threat.

    Returns:
        A `data:` address; empty where no model has both.
    """
    titles = [one.title for one in table.columns]
    places = [titles.index("clean"), titles.index(column)]
    found = [r for r in table.rows if all((r.cells[p] or Cell()).value is not None for p in places)]
    if not any(not row.published for row in found):
        return ""
    names = [f"{row.name}, published" if row.published else row.name for row in found]
    wide, high = _panel(names)
    with svg_drawing(wide + 2.7, max(3.8, high)) as drawing:
        panel = drawing.figure.subplots()
        labels = []
        for index, (row, name) in enumerate(zip(found, names, strict=True)):
            x, y = (_value(row.cells[place]) for place in places)
            colour = GREY if row.published else SERIES[index % len(SERIES)]
            x_error, y_error = (_errors(row.cells, [place]) for place in places)
            style: dict[str, Any] = {"linestyle": "", "elinewidth": 0.8, "capsize": 2}
            style |= {"color": colour, "marker": "o", "markersize": 5}
            panel.errorbar(x, y, xerr=x_error, yerr=y_error, **style)
            labels.append(LineLabel(x, y, name, colour))
        panel.set_xlabel("clean accuracy, %")
        panel.set_ylabel(f"{column}, %")
        label_lines(panel, labels)
    return drawing.uri


def _panel(names: Sequence[str]) -> tuple[float, float]:
    """Width and height in inches of a small panel with names beside it."""
    wide, high = room_for(names)
    return PANEL[0] + wide, max(PANEL[1], high + 0.7)


def _curve(
    panel: Axes, threats: list[ThreatResult], norm: str, shift: float = 0.0, **style: Any
) -> tuple[float, float]:
    """A line through several radii, or a point, moved right by a share of its eps; its end."""
    scale = 255 if norm == "linf" else 1
    threats = sorted(threats, key=lambda threat: threat.eps)
    cells = tuple(threat.cell for threat in threats)
    x = [scale * threat.eps * (1 + shift) for threat in threats]
    y = [_value(cell) for cell in cells]
    style |= {"linestyle": "-" if len(x) > 1 else "", "markersize": 5, "capsize": 2}
    panel.errorbar(x, y, _errors(cells, range(len(cells))), elinewidth=0.8, **style)
    return x[-1], y[-1]


def _value(cell: Cell | None, missing: float = 0.0) -> float:
    return missing if cell is None or cell.value is None else cell.value


def _errors(cells: Sequence[Cell | None], places: Sequence[int]) -> np.ndarray:
    """Distances to both ends of the interval, (2, N); 0 where there is none."""
    found = [cells[place] or Cell() for place in places]
    low = [c.value - c.low if c.value is not None and c.low is not None else 0 for c in found]
    high = [c.high - c.value if c.value is not None and c.high is not None else 0 for c in found]
    return np.clip(np.array([low, high], dtype=np.float64), 0, None)
