import os
import pickle
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.labels.composite_store import (
    CompositeStore,
    pack_runs,
    unpack_runs,
    write_composites,
)
from datamodules.labels.part_crops import random_crop
from datamodules.masks.part_labels import ImageParts, PartInstance, decode_masks, encode_mask
from datamodules.masks.part_masks import LabelRuns, composite


def dense(runs: LabelRuns) -> np.ndarray:
    lengths = np.diff(runs.ends, prepend=0)
    return np.repeat(runs.values, lengths).reshape(runs.height, runs.width)


@pytest.mark.parametrize(
    "labels",
    [
        np.zeros((400, 500), np.int32),  # one run longer than 16 bits
        np.full((1, 255), 7, np.int32),
        np.full((1, 256), 70_000, np.int32),
        np.arange(300, dtype=np.int32).reshape(15, 20),  # more parts than a byte counts
        np.zeros((0, 0), np.int32),
    ],
    ids=["empty", "one-piece", "two-pieces", "many-parts", "no-pixels"],
)
def test_packing_is_exact(labels: np.ndarray) -> None:
    runs = unpack_runs(pack_runs(LabelRuns.encode(labels)), *labels.shape)
    assert np.array_equal(dense(runs), labels)


def random_rows(count: int) -> list[ImageParts]:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        mask = np.zeros((60, 80), bool)
        top, left = rng.integers(0, 40, 2)
        mask[top : top + 15, left : left + 30] = True
        parts = tuple(
            PartInstance(part, encode_mask(np.roll(mask, 3 * part, axis=1)), (0, 0, 1, 1), 0.1)
            for part in (1, 400)
        )
        rows.append(ImageParts(f"cat/{number}.jpg", number % 3, 60, 80, parts))
    return rows


def test_store_gives_every_map_by_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datamodules.labels.composite_store.ROWS_PER_BATCH", 4)
    rows = random_rows(11)
    write_composites(tmp_path / "a.arrow", rows, ())
    store = pickle.loads(pickle.dumps(CompositeStore(tmp_path / "a.arrow")))
    assert len(store) == 11
    assert list(store.images()) == [(row.key, row.label) for row in rows]
    assert [store.image(index) for index in range(11)] == list(store.images())
    for index in (10, 3, 4, 0, 7):
        assert np.array_equal(dense(store.runs(index)), composite(rows[index], ()))
    for read in (store.runs, store.image):
        with pytest.raises(IndexError):
            read(11)
    assert [path.name for path in tmp_path.iterdir()] == ["a.arrow"]


def test_writers_of_equal_process_ids_do_not_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datamodules.labels.composite_store.ROWS_PER_BATCH", 4)
    rows = random_rows(11)

    def slowly() -> Iterator[ImageParts]:
        yield from rows[:6]
        write_composites(tmp_path / "a.arrow", rows, ())  # as a container on another node
        yield from rows[6:]

    write_composites(tmp_path / "a.arrow", slowly(), ())
    store = CompositeStore(tmp_path / "a.arrow")
    assert list(store.images()) == [(row.key, row.label) for row in rows]
    assert [path.name for path in tmp_path.iterdir()] == ["a.arrow"]


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> Iterator[ImageParts]:
        yield from random_rows(3)
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        write_composites(tmp_path / "a.arrow", fail(), ())
    assert not list(tmp_path.iterdir())


def test_store_of_another_format_or_damaged_is_refused(tmp_path: Path) -> None:
    schema = pa.schema([("key", pa.string()), ("ends", pa.list_(pa.int32()))])
    with pa.OSFile(str(tmp_path / "old.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema):
        pass
    with pytest.raises(ValueError, match=r"old\.arrow is no store of composite labels, format 2"):
        CompositeStore(tmp_path / "old.arrow").runs(0)
    write_composites(tmp_path / "cut.arrow", random_rows(3), ())
    os.truncate(tmp_path / "cut.arrow", 500)
    with pytest.raises(ValueError, match=r"cut\.arrow is damaged"):
        len(CompositeStore(tmp_path / "cut.arrow"))


def test_composite_equals_painting_dense_masks() -> None:
    rng = np.random.default_rng(1)
    masks = rng.random((4, 9, 7)) > 0.6
    parts = tuple(
        PartInstance(part + 1, encode_mask(mask), (0, 0, 7, 9), score)
        for part, (mask, score) in enumerate(zip(masks, (0.4, 0.1, 0.9, 0.5), strict=True))
    )
    row = ImageParts("cat/1.jpg", 0, 9, 7, parts)
    expected = np.zeros((9, 7), np.int32)
    for index in (1, 0, 3, 2):
        expected[decode_masks(row)[index] == 1] = index + 1
    assert np.array_equal(composite(row, ()), expected)


def test_real_masks_take_less_room_than_png(parts_mini: Path, tmp_path: Path) -> None:
    vocabulary = PartVocabulary.from_pinpp(parts_mini / "pinpp", parts_mini / "imagenet")
    rows = read_annotations(parts_mini / "pinpp", vocabulary)[:60]
    write_composites(tmp_path / "a.arrow", rows, vocabulary.inclusions)
    store = CompositeStore(tmp_path / "a.arrow")
    rng = np.random.default_rng(0)
    cells = np.arange(28) * 8
    size = 0
    for index, row in enumerate(rows):
        file = BytesIO()
        Image.fromarray(composite(row, vocabulary.inclusions).astype(np.uint16)).save(file, "PNG")
        size += file.getbuffer().nbytes
        top, left, height, width = random_crop(rng, row.height, row.width, 0.08)
        y, x = (top + cells * height // 224), (left + cells[::-1] * width // 224)
        expected = np.asarray(Image.open(file))[y[:, None], x]
        assert np.array_equal(store.runs(index).at(y, x), expected)
    assert (tmp_path / "a.arrow").stat().st_size < 0.75 * size
