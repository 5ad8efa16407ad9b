"""Pseudo labels on disk: Parquet, one row an image, its instances nested."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.files.errors import MissingInputError, UserError
from datamodules.masks.part_labels import ImageParts, PartInstance

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
    return sorted((run / "labels").glob("*.parquet"))


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


def read_shard(file: Path, label: int | None = None) -> list[ImageParts]:
    """Labels of one shard, in order.

    Args:
        file: one of `label_files`.
        label: when given, only images of this object category.

    Raises:
        UserError: if the shard is damaged; the message names it.
    """
    filters = None if label is None else [("label", "=", label)]
    return from_table(_read(file, schema=SCHEMA, filters=filters))


def shard_objects(file: Path) -> set[int]:
    """Labels of the object categories that a shard holds images of.

    Raises:
        UserError: if the shard is damaged; the message names it.
    """
    return set(_read(file, columns=["label"])["label"].unique().to_pylist())


def _read(file: Path, **options: Any) -> pa.Table:
    try:
        return pq.read_table(file, **options)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{file} is damaged ({error}): delete it and run make stage2-pseudolabels again"
        ) from None


def read_labels(folder: Path) -> list[ImageParts]:
    """All labels of a stage 2 run folder, sorted by key.

    Args:
        folder: run folder that holds `labels/*.parquet`.

    Raises:
        MissingInputError: if there are no labels.
        UserError: if a shard is damaged; the message names it.
    """
    rows = [row for file in label_files(folder) for row in read_shard(file)]
    return sorted(rows, key=lambda row: row.key)
