import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from datamodules.imagenet_shards import ImageNetShards, shard_is_complete, shard_path
from datamodules.part_labels import ImageParts, PartInstance
from datamodules.pseudo_labels import to_table

OBJECTS = ("ant", "bee")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eleven small images of two objects, with a part each."""
    rng = np.random.default_rng(0)
    (tmp_path / "pinpp/json").mkdir(parents=True)
    for name, count in zip(OBJECTS, (6, 5), strict=True):
        folder = tmp_path / "imagenet/train" / name
        folder.mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (20 + index, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}_{index}.png")
        content = {"images": [], "annotations": [], "categories": [{"id": 0, "name": "head"}]}
        (tmp_path / f"pinpp/json/{name}.json").write_text(json.dumps(content))
    return tmp_path


def make_data(
    root: Path, run: Path, rank: int = 0, world_size: int = 1, batch_size: int = 3
) -> ImageNetShards:
    data = ImageNetShards(root / "imagenet", root / "pinpp", batch_size=batch_size, shard_size=4)
    strategy = SimpleNamespace(is_global_zero=True, broadcast=lambda value: value)
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        strategy=strategy, default_root_dir=str(run), global_rank=rank, world_size=world_size
    )
    return data


def rows_of(keys: list[str]) -> list[ImageParts]:
    part = PartInstance(1, b"run lengths", (0.0, 0.0, 3.0, 3.0), 0.5)
    return [ImageParts(key, 0, 20, 24, (part,)) for key in keys]


def write(run: Path, shard: int, keys: list[str]) -> Path:
    path = shard_path(run, shard)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(to_table(rows_of(keys)), path, compression="none", write_page_checksum=True)
    return path


def test_batches_cover_every_image_once_and_stay_within_shards(root: Path, tmp_path: Path) -> None:
    data = make_data(root, tmp_path / "run")
    batches = list(data.predict_dataloader())
    assert [key for batch in batches for key in batch["key"]] == [key for key, _ in data.images]
    assert len(data.images) == 11
    assert [(batch["shard"], len(batch["key"])) for batch in batches] == [
        (0, 3),
        (0, 1),
        (1, 3),
        (1, 1),
        (2, 3),
    ]


def test_image_is_what_was_saved(root: Path, tmp_path: Path) -> None:
    batch = next(iter(make_data(root, tmp_path / "run").predict_dataloader()))
    saved = np.asarray(Image.open(root / "imagenet/train" / batch["key"][2]))
    assert batch["image"][2].dtype == torch.uint8
    assert np.array_equal(batch["image"][2].permute(1, 2, 0).numpy(), saved)
    assert batch["label"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_share_the_missing_shards(root: Path, tmp_path: Path, world_size: int) -> None:
    run = tmp_path / "run"
    data = make_data(root, run)
    write(run, 1, data.shard_keys(1))
    seen: list[str] = []
    for rank in range(world_size):
        batches = list(make_data(root, run, rank, world_size).predict_dataloader())
        assert batches  # a rank without work still takes part in the hooks
        seen += [key for batch in batches for key in batch["key"]]
    assert sorted(seen) == data.shard_keys(0) + data.shard_keys(2)


def test_batches_of_a_shard_do_not_depend_on_the_world_size(root: Path, tmp_path: Path) -> None:
    alone = {tuple(b["key"]) for b in make_data(root, tmp_path).predict_dataloader()}
    shared = {
        tuple(batch["key"])
        for rank in range(2)
        for batch in make_data(root, tmp_path, rank, 2).predict_dataloader()
    }
    assert alone == shared


@pytest.mark.parametrize("damage", ["truncated", "flipped", "reordered", "short", "not parquet"])
def test_damaged_shard_is_missing(root: Path, tmp_path: Path, damage: str) -> None:
    data = make_data(root, tmp_path)
    keys = data.shard_keys(0)
    path = write(tmp_path, 0, keys)
    assert shard_is_complete(path, keys)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "flipped":
        content = bytearray(path.read_bytes())
        content[content.index(b"run lengths")] ^= 1
        path.write_bytes(content)
    elif damage == "reordered":
        write(tmp_path, 0, keys[::-1])
    elif damage == "short":
        write(tmp_path, 0, keys[:-1])
    else:
        path.write_text("labels")
    assert not shard_is_complete(path, keys)
    assert data.missing_shards(tmp_path) == [0, 1, 2]


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_unreadable_image_is_reported_in_its_place(
    root: Path, tmp_path: Path, content: bytes | None
) -> None:
    data = make_data(root, tmp_path)
    file = root / "imagenet/train" / data.images[1][0]
    file.write_bytes(file.read_bytes()[:300] if content is None else content)
    batch = next(iter(data.predict_dataloader()))
    assert [bool(error) for error in batch["error"]] == [False, True, False]
    assert file.name in batch["error"][1]
    assert batch["image"][1].shape == (3, 0, 0)
    assert batch["image"][2].shape == (3, 22, 24)


def test_workers_give_the_same_batches(root: Path, tmp_path: Path) -> None:
    data = make_data(root, tmp_path)
    alone = list(data.predict_dataloader())
    data.num_workers = 1
    for one, other in zip(alone, data.predict_dataloader(), strict=True):
        assert one["key"] == other["key"]
        assert all(torch.equal(a, b) for a, b in zip(one["image"], other["image"], strict=True))


def test_refusals_name_the_value(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch_size \\(0\\)"):
        make_data(root, tmp_path, batch_size=0)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ImageNetShards(root / "nowhere", root / "pinpp")
