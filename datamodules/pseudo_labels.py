"""Pseudo labels on disk: Parquet, one row an image, its instances nested."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.part_labels import ImageParts, PartInstance

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


def read_labels(folder: Path) -> list[ImageParts]:
    """All labels of a stage 2 run folder, sorted by key.

    Args:
        folder: run folder that holds `labels/*.parquet`.

    Raises:
        FileNotFoundError: if there are no labels.
        ValueError: if a shard is damaged; the message names it.
    """
    files = sorted((folder / "labels").glob("*.parquet"))
    if not files:
        raise FileNotFoundError(
            f"{folder / 'labels'} holds no pseudo labels: run make stage2-pseudolabels first"
        )
    rows: list[ImageParts] = []
    for file in files:
        try:
            rows += from_table(pq.read_table(file, schema=SCHEMA))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{file} is damaged ({error}): delete it and run make stage2-pseudolabels again"
            ) from None
    return sorted(rows, key=lambda row: row.key)
