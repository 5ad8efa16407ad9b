"""Accuracy of every episode, by view, number of shots and classifier."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor

from datamodules.evaluation.few_shot_episodes import Episode
from modules.probes.linear_probe import linear_probe
from modules.probes.nearest_mean import nearest_mean

NEAREST_MEAN, LINEAR_PROBE = "nearest_mean", "linear_probe"
SCORE_SCHEMA = pa.schema(
    [
        ("view", pa.string()),
        ("shots", pa.int32()),
        ("classifier", pa.string()),
        ("episode", pa.int32()),
        ("right", pa.int32()),
        ("queries", pa.int32()),
        ("accuracy", pa.float64()),
    ]
)


class Setting(NamedTuple):
    """What a row of the results is about."""

    view: str
    shots: int
    classifier: str

    def __str__(self) -> str:
        return f"{self.view}, {self.shots}-shot, {self.classifier.replace('_', ' ')}"


def score_episodes(
    features: Mapping[str, np.ndarray],
    keys: Sequence[str],
    episodes: Sequence[Episode],
    shots: Sequence[int],
    *,
    normalise: bool,
    probe_strength: float,
) -> Iterator[pa.Table]:
    """Scores all episodes, with a bar; a table of `SCORE_SCHEMA` for each of the settings.

    Args:
        features: `(N, C)` by view.
        keys: of the N images.
        episodes: the episodes, with at least as many supporting images as the largest of `shots`.
        shots: how many supporting images of each class are used.
        normalise: bring every feature to length 1 first.
        probe_strength: of the linear probe, see `fit_linear_probe`.

    Raises:
        UserError: if a linear probe does not converge.
    """
    classifiers: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        NEAREST_MEAN: nearest_mean,
        LINEAR_PROBE: lambda support, queries: linear_probe(support, queries, probe_strength),
    }
    place = {key: number for number, key in enumerate(keys)}
    console = Console(stderr=True)
    for view, plain in features.items():
        vectors = torch.from_numpy(plain).double()  # exact, so ties and minima are the features'
        if normalise:
            vectors = F.normalize(vectors, dim=1)
        for number in shots:
            for name, classify in classifiers.items():
                setting = Setting(view, number, name)
                bar = track(episodes, str(setting), console=console)
                right = [_right(episode, number, vectors, place, classify) for episode in bar]
                yield _table(setting, right, [sum(map(len, one.queries)) for one in episodes])


def accuracies(table: pa.Table, setting: Setting) -> np.ndarray:
    """Accuracies `(E,)` in [0, 1] of one setting, in the order of the episodes."""
    rows = [
        (row["episode"], row["accuracy"])
        for row in table.to_pylist()
        if (row["view"], row["shots"], row["classifier"]) == tuple(setting)
    ]
    return np.array([accuracy for _, accuracy in sorted(rows)], np.float64)


def settings_of(table: pa.Table) -> list[Setting]:
    """The settings of a table in the order of their first rows."""
    columns = (table[name].to_pylist() for name in Setting._fields)
    return [Setting(*values) for values in dict.fromkeys(zip(*columns, strict=True))]


def _right(
    episode: Episode,
    shots: int,
    vectors: Tensor,
    place: Mapping[str, int],
    classify: Callable[[Tensor, Tensor], Tensor],
) -> int:
    support = torch.stack([vectors[[place[k] for k in one[:shots]]] for one in episode.support])
    queries = torch.cat([vectors[[place[k] for k in one]] for one in episode.queries])
    labels = torch.arange(len(episode.classes)).repeat_interleave(len(episode.queries[0]))
    return int((classify(support, queries) == labels).sum())


def _table(setting: Setting, right: Sequence[int], queries: Sequence[int]) -> pa.Table:
    number = len(right)
    columns = {
        "view": [setting.view] * number,
        "shots": [setting.shots] * number,
        "classifier": [setting.classifier] * number,
        "episode": range(number),
        "right": right,
        "queries": queries,
        "accuracy": [a / b for a, b in zip(right, queries, strict=True)],
    }
    return pa.table(columns, SCORE_SCHEMA)
