import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.files.errors import UserError
from datamodules.images.image_lists import format_image_list
from datamodules.images.resized_store import Settings
from datamodules.labels.composite_store import CompositeStore, write_composites
from datamodules.labels.part_crops import random_crop
from datamodules.labels.pseudo_labels import to_table
from datamodules.masks.part_labels import ImageParts
from datamodules.masks.part_masks import composite
from datamodules.part_supervised import PartSupervisedDataModule
from pipeline.annotations.resize_images import resize_images


@pytest.fixture
def truth(shapes_root: Path) -> list[ImageParts]:
    vocabulary = PartVocabulary.from_pinpp(shapes_root / "pinpp", shapes_root / "imagenet")
    return sorted(
        read_annotations(shapes_root / "pinpp", vocabulary)
        + read_annotations(shapes_root / "truth", vocabulary),
        key=lambda row: row.key,
    )


def data(
    shapes_root: Path, folder: Path, rows: list[ImageParts], **kwargs: object
) -> PartSupervisedDataModule:
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    pq.write_table(to_table(rows), folder / "labels" / "00000.parquet")
    module = PartSupervisedDataModule(
        shapes_root / "imagenet",
        shapes_root / "pinpp",
        folder,
        image_size=32,
        val_resize=32,
        val_images=6,
        batch_size=4,
        **kwargs,  # type: ignore[arg-type]
    )
    module.prepare_data()
    module.setup("fit")
    return module


def test_labels_equal_nearest_resizing_of_the_dense_map(
    shapes_root: Path, tmp_path: Path, truth: list[ImageParts]
) -> None:
    images = data(shapes_root, tmp_path, truth).train_set
    vocabulary = PartVocabulary.from_pinpp(shapes_root / "pinpp", shapes_root / "imagenet")
    for index, row in enumerate(truth):
        rng = np.random.default_rng((0, 3, index))
        top, left, height, width = random_crop(rng, row.height, row.width, 0.08)
        dense = Image.fromarray(composite(row, vocabulary.inclusions))
        box = (left, top, left + width, top + height)
        crop = dense.resize((32, 32), Image.Resampling.NEAREST, box=box)
        if rng.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        sample = images[3, index]
        assert np.array_equal(sample["part_labels"].numpy(), np.array(crop)[::8, ::8])
        assert sample["part_weight"] == sample["part_labels"].any()
        assert sample["image"].shape == (3, 32, 32)
        assert sample["image"].dtype == torch.uint8


def test_sample_depends_on_epoch_and_index_only(
    shapes_root: Path, tmp_path: Path, truth: list[ImageParts]
) -> None:
    images = data(shapes_root, tmp_path, truth).train_set
    first = images[1, 5]["image"]
    images[2, 6]
    assert torch.equal(images[1, 5]["image"], first)
    assert not torch.equal(images[2, 5]["image"], first)


def test_workers_get_no_names_and_the_same_samples(
    shapes_root: Path, tmp_path: Path, truth: list[ImageParts]
) -> None:
    images = data(shapes_root, tmp_path, truth).train_set
    sent = pickle.dumps(images)
    assert not [key for key, _ in images.images if key.encode() in sent]
    received = pickle.loads(sent)
    assert list(received.images) == list(images.images)
    ours, theirs = images[2, 3], received[2, 3]
    assert ours.pop("key") == theirs.pop("key")
    for name, value in ours.items():
        assert torch.equal(torch.as_tensor(theirs[name]), torch.as_tensor(value)), name


def test_human_annotations_replace_pseudo_labels_and_unreadable_images_are_left_out(
    shapes_root: Path, tmp_path: Path, truth: list[ImageParts]
) -> None:
    vocabulary = PartVocabulary.from_pinpp(shapes_root / "pinpp", shapes_root / "imagenet")
    annotated = {row.key for row in read_annotations(shapes_root / "pinpp", vocabulary)}
    empty = [replace(row, instances=()) for row in truth]
    unlabelled = next(i for i, row in enumerate(truth) if row.key not in annotated)
    empty[unlabelled] = replace(empty[unlabelled], error="cannot be decoded")
    store = data(shapes_root, tmp_path, empty).train_set.store
    labelled = {
        key: bool(store.runs(index).values.any()) for index, (key, _) in enumerate(store.images())
    }
    assert truth[unlabelled].key not in labelled
    assert {key for key, found in labelled.items() if found} == annotated


def test_weak_pseudo_labels_are_left_out(
    shapes_root: Path, tmp_path: Path, truth: list[ImageParts]
) -> None:
    weak = [
        replace(row, instances=tuple(replace(part, score=0.3) for part in row.instances))
        for row in truth
    ]
    labelled = []
    for threshold in (0.2, 0.4):
        store = data(shapes_root, tmp_path, weak, score_threshold=threshold).train_set.store
        labelled.append(sum(bool(store.runs(i).values.any()) for i in range(len(store))))
    assert labelled == [36, 24]  # all, and the annotated ones only


def test_store_survives_more_rows_than_a_batch(
    tmp_path: Path, truth: list[ImageParts], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datamodules.labels.composite_store.ROWS_PER_BATCH", 5)
    write_composites(tmp_path / "store.arrow", truth, ())
    store = CompositeStore(tmp_path / "store.arrow")
    assert [key for key, _ in store.images()] == [row.key for row in truth]
    for index, row in enumerate(truth):
        dense = store.runs(index).at(np.arange(row.height), np.arange(row.width))
        assert np.array_equal(dense, composite(row, ()))


def test_validation_subset_is_balanced(
    shapes_root: Path, tmp_path: Path, truth: list[ImageParts]
) -> None:
    module = data(shapes_root, tmp_path, truth)
    labels = [label for _, label in module.val_set.images]
    assert sorted(labels) == [0, 0, 1, 1, 2, 2]


def test_crops_stay_inside_and_cover_their_share() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = rng.integers(20, 400, 2).tolist()
        top, left, h, w = random_crop(rng, height, width, 0.35)
        assert min(top, left) >= 0
        assert top + h <= height
        assert left + w <= width
        assert min(h, w) > 0


def test_training_images_without_a_row_are_refused(
    shapes_root: Path, tmp_path: Path, truth: list[ImageParts]
) -> None:
    message = rf"no row for {truth[0].key} and 1 more.*delete .*labels and run .*stage2"
    with pytest.raises(ValueError, match=message):
        data(shapes_root, tmp_path, truth[2:])


def test_annotations_of_images_that_are_listed_under_another_name_are_refused(
    shapes_root: Path, tmp_path: Path, truth: list[ImageParts], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(shapes_root, tmp_path / "data"))
    file = sorted((root / "pinpp/json").iterdir())[0]
    content = json.loads(file.read_text())
    entry = content["images"][0]
    entry["file_name"] = entry["file_name"].replace(".jpg", ".JPG")
    file.write_text(json.dumps(content))
    # as on a file system that takes small letters for capitals
    exists = os.path.isfile
    monkeypatch.setattr(os.path, "isfile", lambda p: exists(str(p).replace(".JPG", ".jpg")))
    message = (
        rf"pinpp annotates {entry['file_name']} and 0 more images that .*train lists under oth"
    )
    with pytest.raises(UserError, match=message):
        data(root, tmp_path / "run", truth)


def test_repeated_foreign_and_mislabelled_rows_are_refused_naming_files(
    shapes_root: Path, tmp_path: Path, truth: list[ImageParts]
) -> None:
    (tmp_path / "labels").mkdir()
    other = tmp_path / "labels/00000 copy.parquet"
    pq.write_table(to_table(truth[:8]), other)
    with pytest.raises(ValueError, match=r"has a row in .*00000.* and one in .*00000.*: delete"):
        data(shapes_root, tmp_path, truth)
    pq.write_table(to_table([replace(truth[0], key="nothing/0.png")]), other)
    with pytest.raises(ValueError, match=r"00000 copy.parquet has a row for nothing/0.png, which"):
        data(shapes_root, tmp_path, truth)
    other.unlink()
    wrong = [replace(truth[0], label=2), *truth[1:]]
    with pytest.raises(ValueError, match=rf"00000.parquet gives {truth[0].key} label 2, .* has 0"):
        data(shapes_root, tmp_path, wrong)


def test_composites_are_derived_anew_when_images_or_labels_change(
    shapes_root: Path, tmp_path: Path, truth: list[ImageParts]
) -> None:
    root = Path(shutil.copytree(shapes_root, tmp_path / "data"))
    run = tmp_path / "run"
    first = data(root, run, truth).composites
    assert data(root, run, truth[::-1]).composites != first
    new = root / "imagenet/train" / Path(truth[0].key).with_name("zz_new.jpg")
    shutil.copy(root / "imagenet/train" / truth[0].key, new)
    with pytest.raises(ValueError, match=r"no row for .*zz_new.jpg and 0 more training images"):
        data(root, run, truth)
    row = replace(truth[0], key=f"{new.parent.name}/{new.name}")
    assert len(data(root, run, [*truth, row]).train_set) == len(truth) + 1
    new.unlink()
    with pytest.raises(ValueError, match=r"00000.parquet has a row for .*zz_new.jpg, which is no"):
        data(root, run, [*truth, row])


def test_labels_weigh_by_who_made_them(
    shapes_root: Path, tmp_path: Path, truth: list[ImageParts]
) -> None:
    vocabulary = PartVocabulary.from_pinpp(shapes_root / "pinpp", shapes_root / "imagenet")
    human = {row.key for row in read_annotations(shapes_root / "pinpp", vocabulary)}
    weights = {"pseudo_weight": 0.25, "human_weight": 2.0}
    images = data(shapes_root, tmp_path, truth, min_scale=0.01, **weights).train_set
    seen = set()
    for epoch in range(4):
        for index in range(len(images)):
            sample = images[epoch, index]
            weight = (2.0 if sample["key"] in human else 0.25) * sample["part_labels"].any().item()
            assert sample["part_weight"] == weight
            seen.add(weight)
    assert seen == {0.0, 0.25, 2.0}


def test_held_out_images_are_validated_on_and_not_trained_on(
    shapes_root: Path, tmp_path: Path, truth: list[ImageParts]
) -> None:
    vocabulary = PartVocabulary.from_pinpp(shapes_root / "pinpp", shapes_root / "imagenet")
    human = {row.key for row in read_annotations(shapes_root / "pinpp", vocabulary)}
    images = {row.key: row.label for row in truth}
    held = [(key, label) for key, label in images.items() if key not in human][::2]
    listed = tmp_path / "fold.txt"
    listed.write_text(format_image_list(held))
    weights = {"pseudo_weight": 0.25, "human_weight": 2.0}
    module = data(shapes_root, tmp_path, truth, held_out=listed, **weights)
    trained = module.train_set
    assert {key for key, _ in trained.images} == images.keys() - dict(held).keys()
    assert set(module.val_set.images) <= set(held)
    everything = data(shapes_root, tmp_path, truth, **weights).train_set
    of = {key: index for index, (key, _) in enumerate(everything.images)}
    for index, (key, label) in enumerate(trained.images):
        assert label == images[key]
        runs, same = trained.store.runs(trained.rows[index]), everything.store.runs(of[key])
        assert np.array_equal(runs.values, same.values)
        sample = trained[0, index]
        weight = (2.0 if key in human else 0.25) * sample["part_labels"].any().item()
        assert sample["part_weight"] == weight
    listed.write_text("gone/x.jpg 0\n")
    with pytest.raises(ValueError, match=r"fold.txt holds out gone/x.jpg, which .*train does not"):
        data(shapes_root, tmp_path, truth, held_out=listed)


def test_smaller_copies_give_the_same_labels_and_nearly_the_same_crops(
    shapes_root: Path, tmp_path: Path, truth: list[ImageParts]
) -> None:
    resize_images(shapes_root / "imagenet", tmp_path / "small", Settings(48, 95), workers=1)
    full = data(shapes_root, tmp_path / "labels", truth, color_jitter=0.0).train_set
    for resampling, most in (("torch", 8), ("pillow", 7)):
        small = data(
            shapes_root,
            tmp_path / "labels",
            truth,
            color_jitter=0.0,
            resized=tmp_path / "small",
            resampling=resampling,
        ).train_set
        differences = []
        for index in range(len(full)):
            wanted, found = full[2, index], small[2, index]
            assert torch.equal(found["part_labels"], wanted["part_labels"])
            assert found["part_weight"] == wanted["part_weight"]
            difference = (found["image"].float() - wanted["image"].float()).abs()
            differences.append(difference.mean())
        assert np.mean(differences) < most


def test_copies_that_do_not_fit_are_refused(
    shapes_root: Path, tmp_path: Path, truth: list[ImageParts]
) -> None:
    imagenet = shutil.copytree(shapes_root / "imagenet", tmp_path / "imagenet")
    gone = imagenet / "train" / truth[3].key
    gone.unlink()
    resize_images(imagenet, tmp_path / "small", Settings(48), workers=1)
    with pytest.raises(ValueError, match=f"no copy of {truth[3].key} and 0 more"):
        data(shapes_root, tmp_path / "labels", truth, resized=tmp_path / "small")
    shutil.copy(shapes_root / "imagenet" / "train" / truth[3].key, gone)
    resize_images(imagenet, tmp_path / "small", Settings(48), workers=1)
    images = data(shapes_root, tmp_path / "labels", truth, resized=tmp_path / "small").train_set
    with Image.open(gone) as image:
        image.resize((40, 30)).save(tmp_path / "small" / "train" / truth[3].key, "JPEG")
    with pytest.raises(ValueError, match="is 30x40, its part labels are 64x64: delete it"):
        images[0, 3]


def test_batches_do_not_depend_on_the_number_of_workers(
    shapes_root: Path, tmp_path: Path, truth: list[ImageParts]
) -> None:
    batches = [
        list(
            data(
                shapes_root, tmp_path, truth, num_workers=workers, random_erasing=0.5
            ).train_dataloader()
        )
        for workers in (0, 2)
    ]
    assert len(batches[0]) == len(batches[1]) == 9
    for one, other in zip(*batches, strict=True):
        assert one.keys() == other.keys() >= {"image", "colour", "erase"}
        assert one.pop("key") == other.pop("key")
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_training_batches_are_augmented_on_the_device_and_validation_batches_are_not(
    shapes_root: Path, tmp_path: Path, truth: list[ImageParts]
) -> None:
    module = data(shapes_root, tmp_path, truth, color_jitter=0.2, random_erasing=1.0)
    batch = next(iter(module.train_dataloader()))
    images = module.on_after_batch_transfer(batch, 0)["image"]
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    top, left, *_ = batch["erase"][0]
    torch.testing.assert_close(images[0, :, top, left], torch.tensor([0.485, 0.456, 0.406]))
    plain = next(iter(module.val_dataloader()))
    assert module.on_after_batch_transfer(plain, 0) is plain
    assert plain["image"].dtype == torch.uint8


@pytest.mark.parametrize(("processes", "enough"), [(1, 36), (2, 18), (5, 8)])
def test_fewer_images_than_a_step_takes_are_refused_by_every_process(
    shapes_root: Path, tmp_path: Path, truth: list[ImageParts], processes: int, enough: int
) -> None:
    module = data(shapes_root, tmp_path, truth)
    loop = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu").fit_loop
    for rank in range(processes):
        ranked: Any = SimpleNamespace(
            global_rank=rank, world_size=processes, fit_loop=loop, limit_train_batches=1.0
        )
        module.trainer = ranked
        module.batch_size = enough
        assert len(module.train_dataloader()) == 1
        module.batch_size = enough + 1
        message = rf"36 images .*\(batch_size={enough + 1}, processes: {processes}\): lower --data"
        with pytest.raises(UserError, match=message):
            module.train_dataloader()


def test_without_jitter_images_stay_as_pillow_gives_them(
    shapes_root: Path, tmp_path: Path, truth: list[ImageParts]
) -> None:
    module = data(shapes_root, tmp_path, truth, color_jitter=0.0, resampling="pillow")
    for index, row in enumerate(truth[:6]):
        rng = np.random.default_rng((0, 1, index))
        top, left, height, width = random_crop(rng, row.height, row.width, 0.08)
        image = Image.open(shapes_root / "imagenet" / "train" / row.key).convert("RGB")
        box = (left, top, left + width, top + height)
        image = image.resize((32, 32), Image.Resampling.BICUBIC, box=box)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        found = module.train_set[1, index]["image"]
        assert np.array_equal(found.permute(1, 2, 0).numpy(), np.array(image))
    batch = next(iter(module.train_dataloader()))
    assert module.on_after_batch_transfer(batch, 0) is batch


@pytest.mark.parametrize(
    "wrong",
    [{"pseudo_weight": -1.0}, {"human_weight": -0.1}, {"random_erasing": 1.5}, {"color_jitter": 2}],
)
def test_settings_out_of_range_are_refused(
    shapes_root: Path, tmp_path: Path, truth: list[ImageParts], wrong: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        data(shapes_root, tmp_path, truth, **wrong)
