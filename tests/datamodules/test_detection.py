import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules.detection import PartDetectionData


def data(root: Path, **kwargs: object) -> PartDetectionData:
    module = PartDetectionData(root / "imagenet", root / "pinpp", batch_size=3, **kwargs)
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


def test_image_of_another_size_than_annotated(shapes_root: Path, tmp_path: Path) -> None:
    pinpp = tmp_path / "pinpp"
    shutil.copytree(shapes_root / "pinpp", pinpp)
    file = sorted((pinpp / "json").glob("*.json"))[0]
    content = json.loads(file.read_text())
    content["images"][0]["width"] += 1
    wrong = content["images"][0]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != wrong["id"]]
    file.write_text(json.dumps(content))
    module = PartDetectionData(shapes_root / "imagenet", pinpp, pinpp_val=shapes_root / "val_parts")
    module.setup("fit")
    index = [parts.key for parts in module.train_set.annotations].index(wrong["file_name"])
    with pytest.raises(ValueError, match="its annotation says"):
        module.train_set[0, index]
