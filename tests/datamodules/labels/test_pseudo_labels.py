from pathlib import Path

import numpy as np
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from datamodules.labels.label_set import read_labels
from datamodules.labels.pseudo_labels import (
    FORMAT,
    PROVENANCE,
    from_table,
    read_columns,
    read_shard,
    to_table,
    write_labels,
)
from datamodules.masks.part_labels import ImageParts, PartInstance, decode_masks, encode_mask


@pytest.fixture
def rows() -> list[ImageParts]:
    mask = np.random.default_rng(0).random((5, 7)) > 0.5
    part = PartInstance(3, encode_mask(mask), (0.5, 1.0, 6.25, 5.0), 0.75)
    return [
        ImageParts("cat/2.jpg", 1, 5, 7, (part, part)),
        ImageParts("cat/1.jpg", 1, 5, 7),
        ImageParts("cat/3.jpg", 1, 0, 0, error="cat/3.jpg cannot be decoded"),
    ]


def test_round_trip(rows: list[ImageParts], tmp_path: Path) -> None:
    assert from_table(to_table(rows)) == rows
    (tmp_path / "labels").mkdir()
    pq.write_table(to_table(rows[:1]), tmp_path / "labels" / "00000.parquet")
    pq.write_table(to_table(rows[1:]), tmp_path / "labels" / "00001.parquet")
    assert read_labels(tmp_path) == sorted(rows, key=lambda row: row.key)
    dataset = pyarrow.dataset.dataset(tmp_path / "labels")
    assert dataset.count_rows() == 3


def test_masks_survive(rows: list[ImageParts]) -> None:
    expected = np.random.default_rng(0).random((5, 7)) > 0.5
    assert np.array_equal(decode_masks(from_table(to_table(rows))[0])[1], expected)


def test_missing_and_damaged_labels_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make stage2-pseudolabels"):
        read_labels(tmp_path)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"00000\.parquet is damaged"):
        read_labels(tmp_path)


def test_a_shard_says_its_format_and_what_it_was_made_from(
    rows: list[ImageParts], tmp_path: Path
) -> None:
    path = tmp_path / "labels" / "00000.parquet"
    write_labels(path, rows, "abc")
    assert read_shard(path) == rows
    assert read_columns(path, "key")["key"].to_pylist() == [row.key for row in rows]
    metadata = pq.read_schema(path).metadata
    assert (metadata[FORMAT], metadata[PROVENANCE]) == (b"1", b"abc")


def test_labels_of_another_format_version_are_refused(
    rows: list[ImageParts], tmp_path: Path
) -> None:
    path = tmp_path / "later.parquet"
    pq.write_table(to_table(rows).replace_schema_metadata({FORMAT: b"2"}), path)
    for read in (read_shard, lambda file: read_columns(file, "key")):
        with pytest.raises(ValueError, match=r"later\.parquet has label format 2.* reads format 1"):
            read(path)
