"""Plots of people beside models, as in Geirhos et al. 2021."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datamodules.evaluation.human_decisions import CONDITIONS, Decisions
from pipeline.drawing.charts import svg_drawing
from pipeline.evaluation.human_consistency import (
    accuracy,
    compare,
    human_alignment,
    model_alignment,
)

CHANCE = 1 / 16
PEOPLE = "#b2182b"
MODELS = ("#2166ac", "#4d9221", "#8073ac", "#b35806", "#01665e", "#7f7f7f")
TEXT = {"svg.fonttype": "none"}  # words stay words that can be searched

ByModel = Mapping[str, Mapping[str, Decisions]]


def draw_alignment(
    people: Mapping[str, Sequence[Decisions]], models: ByModel, folder: Path
) -> list[Path]:
    """Writes `accuracy.svg`, `error_consistency.svg` and `error_consistency_by_condition.svg`.

    Args:
        people: people by experiment.
        models: decisions by experiment, by model.
        folder: where to write; made if needed.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "accuracy.svg": _by_condition(people, models, "accuracy"),
        "error_consistency.svg": _by_experiment(people, models),
        "error_consistency_by_condition.svg": _by_condition(people, models, "kappa"),
    }
    for name, svg in files.items():
        (folder / name).write_bytes(svg)
    return [folder / name for name in files]


def _by_condition(people: Mapping[str, Sequence[Decisions]], models: ByModel, what: str) -> bytes:
    """One panel for each experiment with conditions: accuracy or error consistency."""
    names = [name for name in CONDITIONS if name in people]
    columns = min(4, max(1, len(names)))
    rows = -(-len(names) // columns) or 1
    with svg_drawing(3.0 * columns, 2.4 * rows, TEXT) as drawing:
        panels = drawing.figure.subplots(rows, columns, squeeze=False).flat
        for panel, name in zip(panels, names, strict=False):
            conditions = CONDITIONS[name]
            ticks = np.arange(len(conditions))
            for label, group, colour in _groups(name, people, models):
                values = [_value(what, group, people[name], condition) for condition in conditions]
                panel.plot(ticks, values, marker="o", markersize=3, color=colour, label=label)
            panel.set_xticks(ticks, _short(conditions), rotation=45)
            panel.set_title(name)
            panel.axhline(CHANCE if what == "accuracy" else 0, color="grey", linestyle=":")
            panel.set_ylim((0, 1) if what == "accuracy" else (-0.2, 1))
        for panel in list(panels):
            panel.set_axis_off()
        title = "Accuracy" if what == "accuracy" else "Error consistency with people (kappa)"
        _finish(drawing.figure, title)
    return drawing.svg


def _by_experiment(people: Mapping[str, Sequence[Decisions]], models: ByModel) -> bytes:
    """Bars of error consistency with people: models, and people among themselves."""
    names = list(people)
    labels = ["people", *models]
    width = 0.8 / len(labels)
    with svg_drawing(max(4.0, 0.65 * len(names)), 3.4, TEXT) as drawing:
        panel: Axes = drawing.figure.subplots()
        for position, label in enumerate(labels):
            values = [_kappa(name, label, people, models) for name in names]
            colour = PEOPLE if position == 0 else MODELS[(position - 1) % len(MODELS)]
            ticks = np.arange(len(names)) + (position - (len(labels) - 1) / 2) * width
            panel.bar(ticks, values, width, color=colour, label=label)
        panel.set_xticks(np.arange(len(names)), names, rotation=45, ha="right")
        panel.axhline(0, color="grey", linewidth=0.8)
        _finish(drawing.figure, "Error consistency with people (kappa)")
    return drawing.svg


def _kappa(
    name: str, label: str, people: Mapping[str, Sequence[Decisions]], models: ByModel
) -> float:
    if label == "people":
        return human_alignment(people[name])["error_consistency"]
    if name not in models[label]:
        return float("nan")
    return model_alignment(models[label][name], people[name])["error_consistency"]


def _groups(
    name: str, people: Mapping[str, Sequence[Decisions]], models: ByModel
) -> list[tuple[str, Sequence[Decisions], str]]:
    drawn = [
        (label, [by_experiment[name]], MODELS[index % len(MODELS)])
        for index, (label, by_experiment) in enumerate(models.items())
        if name in by_experiment
    ]
    return [("people", people[name], PEOPLE), *drawn]


def _value(
    what: str, group: Sequence[Decisions], people: Sequence[Decisions], condition: str
) -> float:
    if what == "accuracy":
        return accuracy(group, [condition])
    kappas = [
        compare(one.correct[one.where(condition)], other.correct[other.where(condition)])
        for one in group
        for other in people
        if one is not other and one.where(condition).any()
    ]
    return float(np.mean([found["error_consistency"] for found in kappas] or [np.nan]))


def _short(conditions: Sequence[str]) -> list[str]:
    """Eidolon conditions differ in their first number alone."""
    return [name.split("-")[0] if name.endswith("-10") else name for name in conditions]


def _finish(figure: Figure, title: str) -> None:
    figure.suptitle(title)
    drawn = dict(zip(*reversed(figure.axes[0].get_legend_handles_labels()), strict=True))
    if drawn:
        figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=6)
