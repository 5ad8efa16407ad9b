"""Learning curves in the TensorBoard event files of a run folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SKIPPED = ("epoch", "hp_metric")


@dataclass(frozen=True)
class Curve:
    """One scalar over training.

    Attributes:
        steps: Optimiser steps, int (T,), ascending.
        values: Values at those steps, float (T,).
    """

    steps: np.ndarray
    values: np.ndarray


def read_curves(run: Path) -> dict[str, Curve]:
    """Reads every scalar of the event files that lie directly in a run folder.

    Args:
        run: Run folder of a stage.

    Returns:
        Tag to curve, sorted by tag; empty when the folder has no event file.
    """
    if not any(run.glob("events.out.tfevents.*")):
        return {}
    # 0 keeps every scalar; pictures and graphs are read but not kept
    sizes = {"scalars": 0, "images": 1, "tensors": 1, "histograms": 1}
    events = EventAccumulator(str(run), size_guidance=sizes)
    events.Reload()
    curves = {}
    for tag in sorted(events.Tags()["scalars"]):
        if tag not in SKIPPED:
            points = events.Scalars(tag)
            steps = np.array([point.step for point in points], dtype=np.int64)
            values = np.array([point.value for point in points], dtype=np.float64)
            curves[tag] = Curve(steps, values)
    return curves
