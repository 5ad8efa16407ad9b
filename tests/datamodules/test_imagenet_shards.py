import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from datamodules.files.errors import MissingInputError
from datamodules.imagenet_shards import (
    PROVENANCE,
    ImageNetShardsDataModule,
    shard_is_complete,
)
from datamodules.images.imagenet_folder import list_images
from datamodules.labels.label_set import provenance_hash, shard_path
from datamodules.labels.pseudo_labels import to_table
from datamodules.masks.part_labels import ImageParts, PartInstance

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


def make_data(root: Path, run: Path, batch_size: int = 3) -> ImageNetShardsDataModule:
    return make_ranks(root, run, 1, batch_size)[0]


def make_ranks(
    root: Path, run: Path, world_size: int, batch_size: int = 3
) -> list[ImageNetShardsDataModule]:
    """The data of each process of a run; the first has to be asked first."""
    told: list[object] = []

    def tell(value: object) -> object:
        told.append(value)
        return told[0]

    ranks = []
    for rank in range(world_size):
        data = ImageNetShardsDataModule(
            root / "imagenet", root / "pinpp", batch_size=batch_size, shard_size=4
        )
        data.trainer = SimpleNamespace(  # type: ignore[assignment]
            strategy=SimpleNamespace(is_global_zero=rank == 0, broadcast=tell),
            default_root_dir=str(run),
            global_rank=rank,
            world_size=world_size,
            fast_dev_run=False,
        )
        ranks.append(data)
    return ranks


def keys_of(data: ImageNetShardsDataModule, shard: int) -> pa.Array:
    return data.shard(shard)["key"].combine_chunks()


def rows_of(keys: list[str]) -> list[ImageParts]:
    part = PartInstance(1, b"run lengths", (0.0, 0.0, 3.0, 3.0), 0.5)
    return [ImageParts(key, 0, 20, 24, (part,)) for key in keys]


def write(run: Path, shard: int, keys: pa.Array, source: str = "") -> Path:
    path = shard_path(run, shard)
    path.parent.mkdir(parents=True, exist_ok=True)
    table = to_table(rows_of(keys.to_pylist())).replace_schema_metadata({PROVENANCE: source})
    pq.write_table(table, path, compression="none", write_page_checksum=True)
    return path


def test_batches_cover_every_image_once_and_stay_within_shards(root: Path, tmp_path: Path) -> None:
    data = make_data(root, tmp_path / "run")
    batches = list(data.predict_dataloader())
    assert len(data.images) == 11
    assert [key for batch in batches for key in batch["key"]] == data.images["key"].to_pylist()
    assert [(batch["shard"], batch["start"], len(batch["key"])) for batch in batches] == [
        (0, 0, 3),
        (0, 3, 1),
        (1, 0, 3),
        (1, 3, 1),
        (2, 0, 3),
    ]


def test_image_is_what_was_saved(root: Path, tmp_path: Path) -> None:
    batch = next(iter(make_data(root, tmp_path / "run").predict_dataloader()))
    saved = np.asarray(Image.open(root / "imagenet/train" / batch["key"][2]))
    assert batch["image"][2].dtype == torch.uint8
    assert np.array_equal(batch["image"][2].permute(1, 2, 0).numpy(), saved)
    assert batch["label"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_draw_the_missing_shards(root: Path, tmp_path: Path, world_size: int) -> None:
    run = tmp_path / "run"
    ranks = make_ranks(root, run, world_size)
    write(run, 1, keys_of(ranks[0], 1))
    loaders = [iter(data.predict_dataloader()) for data in ranks]
    seen: list[tuple[str, ...]] = []
    while loaders:  # in turn, as if all were equally fast
        for loader in list(loaders):
            batch = next(loader, None)
            if batch is None:
                loaders.remove(loader)
            else:
                seen.append(tuple(batch["key"]))
    alone = make_data(root, run)
    assert sorted(seen) == sorted(tuple(b["key"]) for b in alone.predict_dataloader())
    assert sorted(key for keys in seen for key in keys) == [
        *keys_of(alone, 0).to_pylist(),
        *keys_of(alone, 2).to_pylist(),
    ]


def test_a_slow_rank_leaves_the_rest_to_the_others(root: Path, tmp_path: Path) -> None:
    slow, fast = make_ranks(root, tmp_path, 2, batch_size=4)
    loader = iter(slow.predict_dataloader())
    assert next(loader)["shard"] == 0
    assert [batch["shard"] for batch in fast.predict_dataloader()] == [1, 2]
    assert next(loader, None) is None


def test_claims_of_a_killed_run_mean_nothing(root: Path, tmp_path: Path) -> None:
    killed = iter(make_data(root, tmp_path).predict_dataloader())
    assert next(killed)["shard"] == 0
    again = make_data(root, tmp_path)
    assert {batch["shard"] for batch in again.predict_dataloader()} == {0, 1, 2}


@pytest.mark.parametrize(
    "damage", ["truncated", "flipped", "reordered", "short", "not parquet", "foreign"]
)
def test_damaged_shard_is_missing(root: Path, tmp_path: Path, damage: str) -> None:
    data = make_data(root, tmp_path)
    keys = keys_of(data, 0)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/_shards.json").write_text("{}")
    source = provenance_hash(tmp_path)
    path = write(tmp_path, 0, keys, source)
    other = write(tmp_path, 1, keys_of(data, 1), source).read_bytes()
    assert shard_is_complete(path, keys, source)
    assert data.missing_shards(tmp_path) == [2]
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "flipped":
        content = bytearray(path.read_bytes())
        content[content.index(b"run lengths")] ^= 1
        path.write_bytes(content)
    elif damage == "reordered":
        write(tmp_path, 0, keys[::-1], source)
    elif damage == "short":
        write(tmp_path, 0, keys[:-1], source)
    elif damage == "foreign":  # the same images, by another segmenter
        write(tmp_path, 0, keys, "0123")
    else:
        path.write_text("labels")
    assert not shard_is_complete(path, keys, source)
    with pytest.warns(UserWarning, match="1 shards are damaged or not of this run.*00000"):
        data.predict_dataloader()
    assert data.missing == [0, 2]
    assert shard_path(tmp_path, 1).read_bytes() == other


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_unreadable_image_is_reported_in_its_place(
    root: Path, tmp_path: Path, content: bytes | None
) -> None:
    data = make_data(root, tmp_path)
    file = root / "imagenet/train" / data.images["key"][1].as_py()
    file.write_bytes(file.read_bytes()[:300] if content is None else content)
    batch = next(iter(data.predict_dataloader()))
    assert [bool(error) for error in batch["error"]] == [False, True, False]
    assert file.name in batch["error"][1]
    assert batch["image"][1].shape == (3, 0, 0)
    assert batch["image"][2].shape == (3, 22, 24)


def test_an_image_that_is_gone_is_no_damaged_image(root: Path, tmp_path: Path) -> None:
    data = make_data(root, tmp_path)
    (root / "imagenet/train" / data.images["key"][1].as_py()).unlink()
    with pytest.raises(MissingInputError, match=r"ant_1\.png does not exist"):
        next(iter(data.predict_dataloader()))


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
        ImageNetShardsDataModule(root / "nowhere", root / "pinpp")


def test_provenance_is_the_hash_of_the_sorted_keys(root: Path, tmp_path: Path) -> None:
    keys = "\n".join(key for key, _ in list_images(root / "imagenet/train"))
    provenance = make_data(root, tmp_path).provenance
    assert provenance["image_list_sha256"] == hashlib.sha256(keys.encode()).hexdigest()
