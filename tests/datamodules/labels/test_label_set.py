"""Shards of a run folder are read as one sound label set, or refused naming a file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.files.errors import UserError
from datamodules.labels.label_set import checked_shards, provenance_hash, read_labels, shard_path
from datamodules.labels.pseudo_labels import write_labels
from datamodules.masks.part_labels import ImageParts, PartInstance

OBJECTS = ("ant", "bee")
SHARDS, SIZE = 4, 3


def rows_of(shard: int) -> list[ImageParts]:
    name, label = ("ant", 0) if shard < 2 else ("bee", 1)
    part = PartInstance(1 + label, b"runs", (0.0, 0.0, 1.0, 1.0), 0.5)
    count = SIZE if shard < SHARDS - 1 else 1
    return [ImageParts(f"{name}/{shard}{i}.jpg", label, 5, 7, (part,)) for i in range(count)]


def make_run(run: Path, settings: str = "first", *, say: bool = True) -> Path:
    """Four shards, the last of one image; `say` writes what they were made from into them."""
    (run / "labels").mkdir(parents=True)
    record = {"images": 3 * SIZE + 1, "shard_size": SIZE, "settings": settings}
    (run / "labels/_shards.json").write_text(json.dumps(record))
    for shard in range(SHARDS):
        write_labels(shard_path(run, shard), rows_of(shard), provenance_hash(run) if say else "")
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The same images labelled under other settings."""
    return make_run(tmp_path / "other", "second")


ALL = [row for shard in range(SHARDS) for row in rows_of(shard)]


def test_a_sound_set_is_read_whole(run: Path) -> None:
    shards = checked_shards(run, OBJECTS, {row.key for row in ALL})
    assert [len(table) for table in shards.values()] == [3, 3, 3, 1]
    assert read_labels(run, OBJECTS) == sorted(ALL, key=lambda row: row.key)


def test_labels_that_do_not_say_what_they_are_from_stay_readable(tmp_path: Path) -> None:
    run = make_run(tmp_path / "old", say=False)
    assert len(read_labels(run, OBJECTS)) == len(ALL)
    (run / "labels/_shards.json").unlink()
    assert len(read_labels(run, OBJECTS)) == len(ALL)


def test_a_shard_of_another_label_set_is_refused(run: Path, other: Path) -> None:
    shutil.copy(shard_path(other, 1), shard_path(run, 1))
    with pytest.raises(ValueError, match=r"00001.parquet is of another label set.*: delete it and"):
        read_labels(run)
    write_labels(shard_path(run, 1), rows_of(1))
    with pytest.raises(ValueError, match=r"00001.parquet is of another label set"):
        read_labels(run)


def test_the_record_of_another_label_set_is_refused(run: Path, other: Path) -> None:
    shutil.copy(other / "labels/_shards.json", run / "labels/_shards.json")
    with pytest.raises(ValueError, match=r"00000.parquet is of another label set"):
        read_labels(run)


def _truncate(run: Path) -> None:
    file = shard_path(run, 2)
    file.write_bytes(file.read_bytes()[:-20])


def _shorten(run: Path) -> None:
    write_labels(shard_path(run, 1), rows_of(1)[:2], provenance_hash(run))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: shard_path(run, 3).unlink(), r"00003.parquet is missing, as are 0 more of"),
        (
            lambda run: shutil.copy(shard_path(run, 3), shard_path(run, 9)),
            r"00009.parquet is none of the 4 shards.*_shards.json.*: remove it",
        ),
        (_truncate, r"00002.parquet is damaged .*: delete it and run"),
        (_shorten, r"00001.parquet has 2 rows, .*_shards.json says 3: delete it and run"),
        (
            lambda run: shutil.copy(shard_path(run, 0), shard_path(run, 1)),
            r"ant/00.jpg has a row in .*00001.parquet and one in .*00000.parquet: delete the file",
        ),
        (
            lambda run: (run / "labels/_shards.json").unlink(),
            r"_shards.json is missing, which .*00000.parquet was written with: restore it, or",
        ),
        (
            lambda run: (run / "labels/_shards.json").write_text("{}"),
            r"_shards.json is damaged .*: restore it, or delete .*labels",
        ),
    ],
)
def test_damage_is_one_line_that_names_the_file(
    damage: Callable[[Path], object], message: str, run: Path
) -> None:
    damage(run)
    with pytest.raises(UserError, match=message) as caught:
        read_labels(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (("bee", "ant"), r"00000.parquet gives ant/00.jpg label 0, the category ant has 1: "),
        (("ant",), r"00002.parquet gives bee/20.jpg label 1, the category bee has none: "),
    ],
)
def test_rows_must_be_of_their_image_s_category(
    objects: tuple[str, ...], message: str, run: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        checked_shards(run, objects)


def outcome(run: Path) -> tuple[list[ImageParts], str]:
    """The labels, or why there are none."""
    try:
        return read_labels(run, OBJECTS), ""
    except UserError as error:
        return [], str(error)


@settings(max_examples=25, derandomize=True, deadline=None)
@given(
    moves=st.lists(
        st.tuples(
            st.sampled_from(("copy", "swap", "delete", "add")),
            st.integers(0, SHARDS - 1),
            st.integers(0, SHARDS - 1),
        ),
        max_size=3,
    )
)
def test_any_shuffle_of_shard_files_gives_the_same_labels_or_names_a_file(
    moves: list[tuple[str, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = make_run(tmp_path_factory.mktemp("shuffled") / "run")
    for move, a, b in moves:
        content = {n: p.read_bytes() for n in (a, b) if (p := shard_path(run, n)).is_file()}
        if move == "delete":
            shard_path(run, a).unlink(missing_ok=True)
        elif move == "add" and a in content:
            shard_path(run, SHARDS + b).write_bytes(content[a])
        elif move == "copy" and a in content:
            shard_path(run, b).write_bytes(content[a])
        elif move == "swap" and len(content) == 2:
            shard_path(run, a).write_bytes(content[b])
            shard_path(run, b).write_bytes(content[a])
    found, message = outcome(run)
    if message:
        assert str(run / "labels") in message
        assert ".parquet" in message or "holds no pseudo labels" in message
    else:
        assert found == sorted(ALL, key=lambda row: row.key)
