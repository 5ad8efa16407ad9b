"""Features of images on disk, each computed once: `features/*.parquet` of a run folder."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.files.atomic_files import written_whole
from datamodules.files.errors import UserError


class FeatureStore:
    """Shards of features, a row an image: `key`, and of each view a list of float32.

    Shards are there whole or not at all, so after a stop what is there is sound.

    Args:
        folder: that of the shards; need not exist.
        views: names of the views, the columns.
    """

    def __init__(self, folder: Path, views: Sequence[str]) -> None:
        self.folder = folder
        self.views = tuple(views)

    @property
    def shards(self) -> list[Path]:
        """The shards by number."""
        return sorted(self.folder.glob("[!.]*.parquet"))

    def missing(self, keys: Sequence[str]) -> list[str]:
        """Which of the keys have no features yet, in their order.

        Raises:
            UserError: if a shard is damaged.
        """
        known = {key for shard in self.shards for key in self._read(shard, ["key"])[0].to_pylist()}
        return [key for key in keys if key not in known]

    def add(self, keys: Sequence[str], features: np.ndarray) -> None:
        """Writes a new shard.

        Args:
            keys: of its images, not empty.
            features: float32 `(N, V, C)`.
        """
        channels = features.shape[2]
        columns = {"key": pa.array(keys, pa.string())}
        for place, view in enumerate(self.views):
            flat = np.ascontiguousarray(features[:, place], np.float32).ravel()
            columns[view] = pa.FixedSizeListArray.from_arrays(pa.array(flat), channels)
        last = max((int(re.sub(r"\D", "", one.stem) or 0) for one in self.shards), default=-1)
        with written_whole(self.folder / f"{last + 1:05d}.parquet") as partial:
            pq.write_table(pa.table(columns), partial)

    def read(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Features float32 `(N, C)` of the keys by view, in their order.

        Raises:
            UserError: if a shard is damaged or a key has no features.
        """
        place = {key: number for number, key in enumerate(keys)}
        found: dict[str, np.ndarray] = {}
        seen: set[str] = set()
        for shard in self.shards:
            names, *columns = self._read(shard, ["key", *self.views])
            rows = [row for row, key in enumerate(names.to_pylist()) if key in place]
            at = [place[key] for key in names.take(pa.array(rows, pa.int64())).to_pylist()]
            seen.update(keys[number] for number in at)
            for view, column in zip(self.views, columns, strict=True):
                flat = column.combine_chunks()
                channels = flat.type.list_size
                values = flat.flatten().to_numpy().reshape(-1, channels)
                if view not in found:
                    found[view] = np.zeros((len(keys), channels), np.float32)
                found[view][at] = values[rows]
        if len(seen) < len(keys):
            lacking = next(key for key in keys if key not in seen)
            raise UserError(f"{self.folder} has no features of {lacking}: run make few-shot again")
        return found

    def _read(self, shard: Path, columns: list[str]) -> list[pa.ChunkedArray]:
        try:
            table = pq.read_table(shard, columns=columns)
            return [table[name] for name in columns]
        except (OSError, pa.ArrowInvalid, KeyError) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise UserError(
                f"{shard} is damaged ({reason}): delete it and run make few-shot again"
            ) from None
