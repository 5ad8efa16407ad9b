"""Composite label maps of all training images, compressed, in a memory-mapped Arrow file.

Derived from the Parquet labels, which stay the truth: random access there costs hundreds of
microseconds a row and more. Every row is compressed for itself, since Arrow's own compression
works on whole batches. A row's content is, before compression, the number of its parts, their
ids, and for each run the position of its part among them and its length.
"""

import bisect
import hashlib
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from datamodules.files.atomic_files import written_whole
from datamodules.files.errors import UserError
from datamodules.masks.part_labels import ImageParts
from datamodules.masks.part_masks import LabelRuns, composite

FORMAT = 2  # names of stores contain it, so that those of another version are derived anew
ROWS_PER_BATCH = 1024
LONGEST_RUN = 255  # a byte; longer runs are split, which costs less than wider lengths
# Decompresses in 2 us, where zlib takes 9 to 13 and zstd 14 for a quarter fewer bytes.
CODEC = pa.Codec("lz4_raw")

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("label", pa.int32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("human", pa.bool_()),  # whether people made the labels
        ("size", pa.int32()),
        ("runs", pa.binary()),
    ],
    metadata={"composite_format": str(FORMAT)},
)


def store_name(facts: Iterable[str], files: Iterable[Path]) -> str:
    """Name of the store that derives from these facts and files: others have another.

    Args:
        facts: all that decides the composites besides the files, such as the list of images.
        files: what they are read from; name, size and time stand for the content.
    """
    digest = hashlib.sha256(f"{FORMAT}\n".encode())
    for file in files:
        status = file.stat()
        digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    for fact in facts:
        digest.update(f"{fact}\n".encode())
    return f"{digest.hexdigest()[:16]}.arrow"


def pack_runs(runs: LabelRuns) -> bytes:
    """Compact bytes of a label map, not yet compressed; `unpack_runs` reads them."""
    lengths = np.diff(runs.ends, prepend=0)
    parts, positions = np.unique(runs.values, return_inverse=True)
    pieces = -(-lengths // LONGEST_RUN)
    split = np.full(pieces.sum(), LONGEST_RUN, np.uint8)
    split[np.cumsum(pieces) - 1] = lengths - LONGEST_RUN * (pieces - 1)
    return b"".join(
        [
            np.int32(len(parts)).tobytes(),
            parts.astype(np.int32).tobytes(),
            np.repeat(positions, pieces).astype(_position_type(len(parts))).tobytes(),
            split.tobytes(),
        ]
    )


def unpack_runs(content: bytes, height: int, width: int) -> LabelRuns:
    """The label map of size `(height, width)` that `pack_runs` packed; long runs stay split."""
    count = int.from_bytes(content[:4], "little")
    kind = _position_type(count)
    start = 4 + 4 * count
    size = (len(content) - start) // (1 + kind.itemsize)
    parts = np.frombuffer(content, np.int32, count, 4)
    positions = np.frombuffer(content, kind, size, start)
    lengths = np.frombuffer(content, np.uint8, size, start + size * kind.itemsize)
    ends = np.add.accumulate(lengths, dtype=np.int32)
    return LabelRuns(ends, parts.take(positions), height, width)


def _position_type(parts: int) -> np.dtype:
    return np.dtype(np.uint8 if parts <= 256 else np.uint16)


def write_composites(
    path: Path, rows: Iterable[ImageParts], inclusions: tuple[tuple[int, int], ...]
) -> None:
    """Writes the composites of `rows` whole or not at all.

    Args:
        path: Arrow IPC file to make.
        rows: part labels; a row of height 0 has none.
        inclusions: pairs (part id, id of the whole that includes it).
    """
    remaining = iter(rows)
    some = iter(lambda: list(islice(remaining, ROWS_PER_BATCH)), [])
    write_batches(path, (composite_batch(chunk, inclusions) for chunk in some))


def write_batches(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    """Writes what `composite_batch` made, whole or not at all.

    Args:
        path: Arrow IPC file to make.
        batches: of at least one row each.
    """
    with (
        written_whole(path, shared=True) as partial,
        pa.OSFile(str(partial), "wb") as sink,
        pa.ipc.new_file(sink, SCHEMA) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)


def composite_batch(
    rows: Iterable[ImageParts],
    inclusions: tuple[tuple[int, int], ...],
    human: Container[str] = frozenset(),
) -> pa.RecordBatch:
    """Composites of some rows, some milliseconds each.

    Args:
        rows: part labels; a row of height 0 has none.
        inclusions: pairs (part id, id of the whole that includes it).
        human: keys of the rows whose labels people made.
    """
    records = [_record(row, inclusions, row.key in human) for row in rows]
    return pa.RecordBatch.from_pylist(records, schema=SCHEMA)


def _record(
    row: ImageParts, inclusions: tuple[tuple[int, int], ...], human: bool
) -> dict[str, object]:
    content = pack_runs(LabelRuns.encode(composite(row, inclusions)))
    return {
        "key": row.key,
        "label": row.label,
        "height": row.height,
        "width": row.width,
        "human": human,
        "size": len(content),
        "runs": CODEC.compress(content, asbytes=True),
    }


@dataclass(frozen=True)
class _Batch:
    """Views into one batch of the mapped file: no copies, few Arrow objects on the way."""

    offsets: np.ndarray
    data: pa.Buffer
    keys: pa.StringArray
    labels: np.ndarray
    sizes: np.ndarray
    heights: np.ndarray
    widths: np.ndarray

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> "_Batch":
        _, offsets, data = batch.column("runs").buffers()
        columns = (batch.column(name).to_numpy() for name in ("label", "size", "height", "width"))
        return cls(np.frombuffer(offsets, np.int32), data, batch.column("key"), *columns)


class CompositeStore:
    """Random access to what `write_composites` wrote; opens lazily, so workers may share it.

    Args:
        path: Arrow IPC file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tables: list[pa.RecordBatch] | None = None
        self._batches: list[_Batch] = []
        self._ends: list[int] = []

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_tables": None, "_batches": [], "_ends": []}

    def _open(self) -> list[pa.RecordBatch]:
        if self._tables is None:
            remedy = "delete it, stage 3 derives it again"
            try:
                reader = pa.ipc.open_file(pa.memory_map(str(self.path)))
                tables = [reader.get_batch(i) for i in range(reader.num_record_batches)]
            except pa.ArrowInvalid as error:
                raise UserError(f"{self.path} is damaged ({error}): {remedy}") from None
            if reader.schema != SCHEMA or reader.schema.metadata != SCHEMA.metadata:
                raise UserError(
                    f"{self.path} is no store of composite labels, format {FORMAT}: {remedy}"
                )
            self._batches = [_Batch.of(batch) for batch in tables]
            self._ends = list(accumulate(batch.num_rows for batch in tables))
            self._tables = tables
        return self._tables

    def __len__(self) -> int:
        self._open()
        return self._ends[-1] if self._ends else 0

    def images(self) -> Iterator[tuple[str, int]]:
        """Key and label of every row, in order."""
        for batch in self._open():
            yield from zip(
                batch.column("key").to_pylist(), batch.column("label").to_pylist(), strict=True
            )

    def image(self, index: int) -> tuple[str, int]:
        """Key and label of one row, read from the mapped file.

        Raises:
            IndexError: if there is no such row.
            UserError: if the file is damaged or of another format.
        """
        batch, row = self._place(index)
        return batch.keys[row].as_py(), int(batch.labels[row])

    def column(self, name: Literal["height", "width", "human"]) -> np.ndarray:
        """Heights or widths in pixels, or whether people made the labels, `(len(self),)`."""
        table = pa.Table.from_batches(self._open(), SCHEMA)
        return table[name].to_numpy()

    def runs(self, index: int) -> LabelRuns:
        """Label map of one row.

        Raises:
            IndexError: if there is no such row.
            UserError: if the file is damaged or of another format.
        """
        batch, row = self._place(index)
        start, stop = batch.offsets[row : row + 2].tolist()
        content = CODEC.decompress(
            batch.data.slice(start, stop - start), int(batch.sizes[row]), asbytes=True
        )
        return unpack_runs(content, int(batch.heights[row]), int(batch.widths[row]))

    def _place(self, index: int) -> tuple[_Batch, int]:
        """Batch of a row, and its place there."""
        if self._tables is None:
            self._open()
        number = bisect.bisect_right(self._ends, index)
        return self._batches[number], index - (self._ends[number - 1] if number else 0)
