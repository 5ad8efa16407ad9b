import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from datamodules.imagenet_shards import PROVENANCE
from datamodules.labels.pseudo_labels import read_shard
from datamodules.masks.part_labels import ImageParts, PartInstance, decode_masks, encode_mask
from pipeline.labelling.shard_writer import ShardWriter, write_shard


def record(index: int) -> dict[str, object]:
    masks = torch.zeros(2, 8, 9, dtype=torch.bool)
    masks[0, index % 8, :3] = True  # the second mask is empty and is left out
    detections = {
        "boxes": torch.tensor([[0.0, 0.0, 3.0, 8.0], [1.0, 1.0, 2.0, 2.0]]),
        "labels": torch.tensor([1, 2]),
        "scores": torch.tensor([0.75, 0.5]),
        "masks": masks,
    }
    size = {"height": 8, "width": 9, "error": ""}
    return {"key": f"ant/{index}.jpg", "label": 0, "detections": detections, **size}


def test_round_trip_of_a_shard(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((3, 9, 13)) < 0.5
    parts = tuple(
        PartInstance(part, encode_mask(mask), (0.5, 1.0, 12.25, 9.0), part / 4)
        for part, mask in enumerate(masks, start=1)
    )
    rows = [ImageParts("ant/0.jpg", 3, 9, 13, parts), ImageParts("ant/1.jpg", 3, 0, 0, (), "bad")]
    write_shard(tmp_path / "labels/00000.parquet", rows, "0123")
    found = read_shard(tmp_path / "labels/00000.parquet")
    assert found == rows
    assert np.array_equal(decode_masks(found[0]), masks)
    assert [path.name for path in (tmp_path / "labels").iterdir()] == ["00000.parquet"]
    assert pq.read_schema(tmp_path / "labels/00000.parquet").metadata[PROVENANCE] == b"0123"


@pytest.mark.parametrize("threads", [1, 3])
def test_shards_are_whole_and_in_order_however_batches_come(tmp_path: Path, threads: int) -> None:
    writer = ShardWriter(tmp_path, "", threads, pending=3)
    batches = [(shard, start) for shard in range(5) for start in range(0, 10, 2)]
    np.random.default_rng(0).shuffle(batches)
    for shard, start in batches[:-1]:
        writer.add(shard, start, 10, [record(10 * shard + start + i) for i in range(2)])
    shard, start = batches[-1]
    writer.close()
    names = {f"{other:05d}.parquet" for other in range(5) if other != shard}
    assert {path.name for path in (tmp_path / "labels").iterdir()} == names
    assert sorted(writer.shards) == [other for other in range(5) if other != shard]
    for other in writer.shards:
        table = pq.read_table(tmp_path / f"labels/{other:05d}.parquet")
        assert table["key"].to_pylist() == [f"ant/{10 * other + i}.jpg" for i in range(10)]
        assert [len(row) for row in table["instances"].to_pylist()] == [1] * 10


def test_failure_of_a_thread_is_raised_and_nothing_partial_stays(tmp_path: Path) -> None:
    (tmp_path / "labels/00001.parquet").mkdir(parents=True)  # in the way of the renaming
    writer = ShardWriter(tmp_path, "")
    writer.add(0, 0, 1, [record(0)])
    writer.add(1, 0, 1, [record(1)])
    deadline = time.monotonic() + 20
    while not (tmp_path / "labels/00000.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(ValueError, match=r"00001.parquet cannot be written \(Is a directory\)"):
        writer.close()
    with pytest.raises(ValueError, match="00001"):
        writer.add(2, 0, 1, [record(2)])
    names = {path.name for path in (tmp_path / "labels").iterdir()}
    assert names == {"00000.parquet", "00001.parquet"}


def test_waiting_batches_are_bounded(tmp_path: Path) -> None:
    gate = threading.Event()

    class Held(list[dict[str, object]]):
        def __iter__(self) -> Iterator[dict[str, object]]:
            gate.wait(20)
            return super().__iter__()

    writer = ShardWriter(tmp_path, "", threads=1, pending=2)
    writer.add(0, 0, 9, Held([record(0)]))
    writer.add(0, 1, 9, Held([record(1)]))
    blocked = threading.Thread(target=writer.add, args=(0, 2, 9, [record(2)]))
    blocked.start()
    blocked.join(0.3)
    assert blocked.is_alive()
    gate.set()
    blocked.join(20)
    assert not blocked.is_alive()
    writer.close()
    assert not (tmp_path / "labels").exists()  # nine images make the shard, three came
