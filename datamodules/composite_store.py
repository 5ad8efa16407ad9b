"""Composite label maps of all training images as run lengths in a memory-mapped Arrow file.

Derived from the Parquet labels, which stay the truth: a random Parquet read costs hundreds of
microseconds a row, a memory-mapped one a few.
"""

import bisect
import os
from collections.abc import Iterable, Iterator
from itertools import accumulate, islice
from pathlib import Path

import pyarrow as pa

from datamodules.part_labels import ImageParts
from datamodules.part_masks import LabelRuns, composite

ROWS_PER_BATCH = 1024

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("label", pa.int32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("ends", pa.list_(pa.int32())),
        ("values", pa.list_(pa.int32())),
    ]
)


def write_composites(
    path: Path, rows: Iterable[ImageParts], inclusions: tuple[tuple[int, int], ...]
) -> None:
    """Writes the composites of `rows` whole or not at all.

    Args:
        path: Arrow IPC file to make.
        rows: part labels; a row of height 0 has none.
        inclusions: pairs (part id, id of the whole that includes it).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        remaining = iter(rows)
        while some := list(islice(remaining, ROWS_PER_BATCH)):
            records = [_record(row, inclusions) for row in some]
            writer.write_batch(pa.RecordBatch.from_pylist(records, schema=SCHEMA))
    os.replace(partial, path)


def _record(row: ImageParts, inclusions: tuple[tuple[int, int], ...]) -> dict[str, object]:
    runs = LabelRuns.encode(composite(row, inclusions))
    return {
        "key": row.key,
        "label": row.label,
        "height": row.height,
        "width": row.width,
        "ends": runs.ends,
        "values": runs.values,
    }


class CompositeStore:
    """Random access to what `write_composites` wrote; opens lazily, so workers may share it.

    Args:
        path: Arrow IPC file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._batches: list[pa.RecordBatch] | None = None
        self._ends: list[int] = []

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_batches": None, "_ends": []}

    def _open(self) -> list[pa.RecordBatch]:
        if self._batches is None:
            reader = pa.ipc.open_file(pa.memory_map(str(self.path)))
            self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
            self._ends = list(accumulate(batch.num_rows for batch in self._batches))
        return self._batches

    def __len__(self) -> int:
        self._open()
        return self._ends[-1] if self._ends else 0

    def images(self) -> Iterator[tuple[str, int]]:
        """Key and label of every row, in order."""
        for batch in self._open():
            yield from zip(
                batch.column("key").to_pylist(), batch.column("label").to_pylist(), strict=True
            )

    def runs(self, index: int) -> LabelRuns:
        """Label map of one row.

        Raises:
            IndexError: if there is no such row.
        """
        batches = self._open()
        number = bisect.bisect_right(self._ends, index)
        batch = batches[number]
        row = index - (self._ends[number - 1] if number else 0)
        ends, values = (
            batch.column(name)[row].values.to_numpy(zero_copy_only=True)
            for name in ("ends", "values")
        )
        return LabelRuns(ends, values, batch["height"][row].as_py(), batch["width"][row].as_py())
