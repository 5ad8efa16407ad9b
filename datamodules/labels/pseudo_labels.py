"""Pseudo labels on disk: Parquet, one row an image, its instances nested."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datamodules.files.atomic_files import written_whole
from datamodules.files.errors import MissingInputError, UserError
from datamodules.masks.part_labels import ImageParts, PartInstance

FORMAT_VERSION = 1
# Where a shard's metadata has the version of its format and the hash of what it was made from.
FORMAT, PROVENANCE = b"partrobust.labels_format", b"partrobust.made_of"
ROWS_AT_ONCE = 4096
# A complete stage does nothing when it is called again, unless a shard that it wrote is gone.
AGAIN = "run the command that made the labels (make stage2-pseudolabels) again"
MAKE_ANEW = f"delete it and {AGAIN}, which makes what is missing"

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("label", pa.int32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        (
            "instances",
            pa.list_(
                pa.struct(
                    [
                        ("part", pa.int32()),
                        ("score", pa.float32()),
                        ("box", pa.list_(pa.float32(), 4)),
                        ("rle", pa.binary()),
                    ]
                )
            ),
        ),
        ("error", pa.string()),
    ]
)


def to_table(rows: Iterable[ImageParts]) -> pa.Table:
    """Arrow table of the schema `SCHEMA`, one row per record, in order."""
    return pa.Table.from_pylist(
        [
            {
                "key": row.key,
                "label": row.label,
                "height": row.height,
                "width": row.width,
                "instances": [
                    {"part": i.part, "score": i.score, "box": list(i.box), "rle": i.rle}
                    for i in row.instances
                ],
                "error": row.error,
            }
            for row in rows
        ],
        schema=SCHEMA,
    )


def from_table(table: pa.Table) -> list[ImageParts]:
    """Records of a table that `to_table` made."""
    return [
        ImageParts(
            row["key"],
            row["label"],
            row["height"],
            row["width"],
            tuple(
                PartInstance(i["part"], i["rle"], tuple(i["box"]), i["score"])
                for i in row["instances"]
            ),
            row["error"],
        )
        for row in table.to_pylist()
    ]


def finished_shards(run: Path) -> list[Path]:
    """The shards `labels/*.parquet` of a stage 2 run folder, in order; empty without any."""
    return sorted((run / "labels").glob("[!.]*.parquet"))


def label_files(folder: Path) -> list[Path]:
    """The shards `labels/*.parquet` of a stage 2 run folder, in order.

    Raises:
        MissingInputError: if there are none.
    """
    files = finished_shards(folder)
    if not files:
        raise MissingInputError(
            f"{folder / 'labels'} holds no pseudo labels: run make stage2-pseudolabels first"
        )
    return files


def write_labels(path: Path, rows: Iterable[ImageParts], provenance: str = "") -> None:
    """Writes a shard whole or not at all, safe from a power cut.

    Args:
        path: the shard's file; its folder is made if it is missing.
        rows: labels of its images, in order.
        provenance: hash of what the labels were made from, kept in the file.

    Raises:
        OSError: if the file cannot be written; nothing of it stays then.
    """
    metadata = {FORMAT: str(FORMAT_VERSION).encode(), PROVENANCE: provenance.encode()}
    table = to_table(rows).replace_schema_metadata(metadata)
    with written_whole(path) as partial, partial.open("wb") as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)
        file.flush()
        os.fsync(file.fileno())


def read_shard(file: Path, label: int | None = None) -> list[ImageParts]:
    """Labels of one shard, in order.

    Args:
        file: one of `label_files`.
        label: when given, only images of this object category.

    Raises:
        UserError: if the shard is damaged or of another format version; the message names it.
    """
    rows: list[ImageParts] = []
    for table in label_batches(file):
        rows += from_table(table if label is None else table.filter(pc.field("label") == label))
    return rows


def read_columns(file: Path, *columns: str) -> pa.Table:
    """Some columns of a shard.

    Raises:
        UserError: if the shard is damaged or of another format version; the message names it.
    """
    with opened_shard(file) as shard:
        return shard.read(list(columns))


def count_errors(file: Path) -> int:
    """How many images of a shard could not be labelled.

    Raises:
        UserError: if the shard is damaged or of another format version; the message names it.
    """
    return pc.sum(pc.not_equal(read_columns(file, "error")["error"], "")).as_py() or 0


def label_batches(file: Path, rows: int = ROWS_AT_ONCE) -> Iterator[pa.Table]:
    """A shard as tables of `SCHEMA` with at most so many rows.

    Raises:
        UserError: if the shard is damaged or of another format version; the message names it.
    """
    with opened_shard(file) as shard:
        for batch in shard.iter_batches(rows, columns=SCHEMA.names):
            yield pa.Table.from_batches([batch]).select(SCHEMA.names).cast(SCHEMA)


@contextmanager
def opened_shard(file: Path) -> Iterator[pq.ParquetFile]:
    """Opens a shard for reading; the checksums of its pages are compared.

    Files of the first version, and labels of other programs, say no version and count as 1.

    Raises:
        UserError: if the shard is damaged or of another format version; the message names it.
    """
    remedy = MAKE_ANEW
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as shard:
            version = (shard.schema_arrow.metadata or {}).get(FORMAT, b"1").decode()
            if version != str(FORMAT_VERSION):
                raise UserError(
                    f"{file} has label format {version}, this version of partrobust reads format "
                    f"{FORMAT_VERSION}: {remedy}"
                )
            yield shard
    except UserError:
        raise
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        line = str(error).splitlines()[0] if str(error) else repr(error)
        raise UserError(f"{file} is damaged ({line}): {remedy}") from None
