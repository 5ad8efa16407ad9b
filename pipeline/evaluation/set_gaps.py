"""Means over sets of images without an attack, and how two models differ, from the records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import t as student

from datamodules.files.errors import UserError

LEAST = 30  # images; with fewer the t interval of their differences says little


@dataclass(frozen=True)
class Gap:
    """First less second model.

    Attributes:
        value: the difference.
        low: lower end of its 95 % interval.
        high: upper end.
        is_equal: whether both did the same throughout.
    """

    value: float
    low: float
    high: float
    is_equal: bool = False

    @property
    def is_decided(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


class SetRecords:
    """Records of one model's generalisation, each set read once.

    Args:
        run: its run folder.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self._tables: dict[str, pa.Table | None] = {}

    def outcomes(self, name: str) -> pa.Table | None:
        """Columns `key` and `correct` of all records of a set; None without any.

        Raises:
            UserError: if a record is damaged.
        """
        if name not in self._tables:
            self._tables[name] = _read(self.run / "records" / name)
        return self._tables[name]


def set_gap(first: SetRecords, second: SetRecords, weights: Mapping[str, float]) -> Gap | None:
    """Difference of two weighted means of accuracies, paired by image.

    An image that is in several sets, such as one under all corruptions, counts as one draw: its
    weighted deviations are added up before the variance is taken. Images of one key are one image:
    keys of corruptions are paths below `val/`; those of DIN hold the code of the experiment, but
    for `edge` and `silhouette`, which were drawn from the same pictures. Independent images that
    have a name in common do no harm: their deviations cancel as often as they add up.

    Args:
        first: records of the one model.
        second: of the other.
        weights: weight by name of the set; they sum to 1.

    Returns:
        The difference of shares in [0, 1]; None where a set has no record, or no images in common,
        or there are fewer than 30 images in all.

    Raises:
        UserError: if a record is damaged.
    """
    draws = []
    for name, weight in weights.items():
        tables = [records.outcomes(name) for records in (first, second)]
        if any(table is None for table in tables):
            return None
        one, other = (table for table in tables if table is not None)
        pairs = one.join(other, "key", join_type="inner", right_suffix="_other")
        apart = _shares(pairs, "correct") - _shares(pairs, "correct_other")
        draws.append((weight, pairs["key"], apart))
    return _weighted(draws)


def set_mean(records: SetRecords, weights: Mapping[str, float]) -> Gap | None:
    """Weighted mean of the accuracies of one model, with its interval; see `set_gap`.

    Args:
        records: records of the model.
        weights: weight by name of the set; they sum to 1.
    """
    draws = []
    for name, weight in weights.items():
        table = records.outcomes(name)
        if table is None:
            return None
        draws.append((weight, table["key"], _shares(table, "correct")))
    return _weighted(draws)


def _weighted(draws: Sequence[tuple[float, pa.ChunkedArray, np.ndarray]]) -> Gap | None:
    """Weighted mean over sets of (weight, keys, values), images drawn with all their sets."""
    if not all(len(values) for _, _, values in draws):
        return None
    value, parts, equal = 0.0, [], True
    for weight, keys, values in draws:
        value += weight * float(values.mean())
        equal = equal and not values.any()
        shares = weight * (values - values.mean()) / len(values)
        parts.append(pa.table({"key": keys, "share": shares}))
    images = pa.concat_tables(parts).group_by("key").aggregate([("share", "sum")])
    number = images.num_rows
    if number < LEAST:
        return None
    squares = float((images["share_sum"].to_numpy() ** 2).sum())
    half = float(student.ppf(0.975, number - 1)) * (squares * number / (number - 1)) ** 0.5
    return Gap(value, value - half, value + half, equal)


def _shares(pairs: pa.Table, column: str) -> np.ndarray:
    return pairs[column].cast(pa.int8()).to_numpy().astype(np.float64)


def _read(folder: Path) -> pa.Table | None:
    files = sorted(folder.glob("[!.]*.parquet"))
    if not files:
        return None
    try:
        return pa.concat_tables([pq.read_table(file, columns=["key", "correct"]) for file in files])
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(
            f"{folder} holds a damaged record ({error}): delete that folder and run make "
            "generalisation again"
        ) from None
