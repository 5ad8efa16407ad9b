import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules.part_detection import PartDetectionDataModule


def data(root: Path, **kwargs: object) -> PartDetectionDataModule:
    module = PartDetectionDataModule(root / "imagenet", root / "pinpp", batch_size=3, **kwargs)
    module.setup("fit")
    return module


def same(one: Any, other: Any) -> bool:
    """Deep equality of samples and batches."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def test_batches_keep_the_contract(shapes_root: Path) -> None:
    module = data(shapes_root)
    batch = next(iter(module.train_dataloader()))
    assert len(batch["image"]) == len(batch["key"]) == len(batch["target"]) == 3
    assert batch["label"].shape == (3,)
    for image, target, label, key in zip(
        batch["image"], batch["target"], batch["label"], batch["key"], strict=True
    ):
        assert type(image) is torch.Tensor
        assert image.dtype == torch.uint8
        assert module.vocabulary.objects[label] == key.split("/")[0]
        assert set(target["labels"].tolist()) <= set(module.vocabulary.parts_of(int(label)))
        assert target["masks"].shape[1:] == image.shape[1:]
        sizes = target["boxes"][:, 2:] - target["boxes"][:, :2]
        assert (sizes > 0).all()


def test_split_without_and_with_annotated_val(shapes_root: Path) -> None:
    split = data(shapes_root)
    whole = data(shapes_root, pinpp_val=shapes_root / "val_parts")
    train = {parts.key for parts in split.train_set.annotations}
    held_out = {parts.key for parts in split.val_set.annotations}
    assert not train & held_out
    assert train | held_out == {parts.key for parts in whole.train_set.annotations}
    assert whole.val_set.images.name == "val"
    keys = [key for batch in whole.val_dataloader() for key in batch["key"]]
    assert keys == [parts.key for parts in whole.val_set.annotations]


def test_image_counts_and_split_keys(shapes_root: Path) -> None:
    module = data(shapes_root)
    assert module.image_counts.shape == (module.object_parts.shape[1],)
    assert module.image_counts[0] == 0
    for part in range(1, len(module.image_counts)):
        shown = [p for p in module.train_set.annotations if part in {i.part for i in p.instances}]
        assert module.image_counts[part] == len(shown)
    by_object = Counter(p.label for p in module.train_set.annotations if p.instances)
    objects = range(len(module.vocabulary.objects))
    assert module.object_counts.tolist() == [by_object[label] for label in objects]
    assert module.split_keys["val"] == [parts.key for parts in module.val_set.annotations]


def test_split_file(shapes_root: Path, tmp_path: Path) -> None:
    usual = data(shapes_root).split_keys
    swapped = {"train": usual["val"], "val": usual["train"]}
    file = tmp_path / "split.json"
    file.write_text(json.dumps(swapped))
    assert data(shapes_root, split=file).split_keys == swapped
    with pytest.raises(FileNotFoundError, match="nowhere"):
        data(shapes_root, split=tmp_path / "nowhere.json")
    with pytest.raises(ValueError, match="give one of them"):
        data(shapes_root, split=file, pinpp_val=shapes_root / "val_parts")


def test_copies_of_a_rare_image_are_augmented_on_their_own(shapes_root: Path) -> None:
    module = data(shapes_root, repeat_threshold=1.0, canvas=64, scale=(0.1, 2.0))
    total = len(module.train_set)
    batches = list(module.train_dataloader())
    keys = Counter(key for batch in batches for key in batch["key"])
    assert sum(keys.values()) > total
    assert max(keys.values()) > 1
    assert {image.shape for batch in batches for image in batch["image"]} == {(3, 64, 64)}
    first, copy = module.train_set[0, 2], module.train_set[0, 2 + total]
    assert first["key"] == copy["key"]
    assert not torch.equal(first["image"], copy["image"])
    assert same(copy, module.train_set[0, 2 + total])


def test_same_sample_for_same_epoch_and_index(shapes_root: Path) -> None:
    first, second = data(shapes_root).train_set, data(shapes_root).train_set
    assert same(first[3, 2], second[3, 2])
    assert not torch.equal(first[3, 2]["image"], first[4, 2]["image"])


def test_workers_give_the_same_batches(shapes_root: Path) -> None:
    module = data(shapes_root)
    alone = list(module.train_dataloader())
    workers = list(data(shapes_root, num_workers=2).train_dataloader())
    assert len(alone) == len(module.train_set) // 3
    assert all(same(one, other) for one, other in zip(alone, workers, strict=True))


def test_parts_that_no_training_image_shows_are_named(shapes_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(shapes_root, root)
    file = sorted((root / "pinpp" / "json").glob("*.json"))[0]
    content = json.loads(file.read_text())
    content["categories"] += [{"id": 90, "name": "wing"}, {"id": 91, "name": "antenna"}]
    file.write_text(json.dumps(content))
    names = f"{file.stem}:antenna, {file.stem}:wing"
    with pytest.warns(UserWarning, match=rf"2 of \d+ parts have no mask .*: {names}"):
        module = data(root)
    assert module.image_counts.count_nonzero() == module.vocabulary.num_parts - 2
    for path in (root / "pinpp" / "json").glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []}))
    with pytest.raises(ValueError, match="no image to train on shows a part"):
        data(root)


def test_image_of_another_size_than_annotated(shapes_root: Path, tmp_path: Path) -> None:
    pinpp = tmp_path / "pinpp"
    shutil.copytree(shapes_root / "pinpp", pinpp)
    file = sorted((pinpp / "json").glob("*.json"))[0]
    content = json.loads(file.read_text())
    content["images"][0]["width"] += 1
    wrong = content["images"][0]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != wrong["id"]]
    file.write_text(json.dumps(content))
    module = PartDetectionDataModule(
        shapes_root / "imagenet", pinpp, pinpp_val=shapes_root / "val_parts"
    )
    module.setup("fit")
    index = [parts.key for parts in module.train_set.annotations].index(wrong["file_name"])
    with pytest.raises(ValueError, match="its annotation says"):
        module.train_set[0, index]
