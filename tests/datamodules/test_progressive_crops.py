"""Crops that grow with the epoch, and training images kept for the watch."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.images.progressive_resolution import ProgressiveResolution
from datamodules.labels.part_crops import random_crop
from datamodules.labels.pseudo_labels import to_table
from datamodules.masks.part_labels import ImageParts
from datamodules.masks.part_masks import composite
from datamodules.part_supervised import PartSupervisedDataModule


@pytest.fixture
def truth(shapes_root: Path) -> list[ImageParts]:
    vocabulary = PartVocabulary.from_pinpp(shapes_root / "pinpp", shapes_root / "imagenet")
    return sorted(
        read_annotations(shapes_root / "pinpp", vocabulary)
        + read_annotations(shapes_root / "truth", vocabulary),
        key=lambda row: row.key,
    )


@pytest.fixture
def labels(tmp_path: Path, truth: list[ImageParts]) -> Path:
    (tmp_path / "labels").mkdir()
    pq.write_table(to_table(truth), tmp_path / "labels" / "00000.parquet")
    return tmp_path


def data(shapes_root: Path, labels: Path, **settings: Any) -> PartSupervisedDataModule:
    return PartSupervisedDataModule(
        shapes_root / "imagenet",
        shapes_root / "pinpp",
        labels,
        **{"image_size": 64, "val_resize": 72, "val_images": 3, "batch_size": 8, **settings},
    )


class Shapes(LightningModule):
    """Trains nothing and notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        images, parts = batch["image"], batch["part_labels"]
        self.seen.append((self.current_epoch, (*images.shape,), (*parts.shape,)))
        return self.weight * images.mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("workers", [0, 1])
def test_every_batch_has_the_size_of_its_epoch(
    workers: int, shapes_root: Path, labels: Path
) -> None:
    """Workers stay alive over the epochs; size, attack and labels follow the epoch alone."""
    course = ProgressiveResolution(0.5, 0.75)
    module, crops = Shapes(), data(shapes_root, labels, progressive=course, num_workers=workers)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=4,
        limit_val_batches=0,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **quiet,  # type: ignore[arg-type]
    )
    trainer.fit(module, crops)
    sides = [32, 32, 32, 64]
    expected = [
        (e, (8, 3, s, s), (8, s // 8, s // 8)) for e, s in enumerate(sides) for _ in range(4)
    ]
    assert module.seen == expected


def test_labels_of_a_small_crop_equal_nearest_resizing(
    shapes_root: Path, labels: Path, truth: list[ImageParts]
) -> None:
    module = data(shapes_root, labels)
    module.prepare_data()
    module.setup("fit")
    images, vocabulary = module.train_set, module.vocabulary
    images.sides = [32]
    for index, row in enumerate(truth):
        rng = np.random.default_rng((0, 0, index))
        top, left, height, width = random_crop(rng, row.height, row.width, 0.08)
        dense = Image.fromarray(composite(row, vocabulary.inclusions))
        box = (left, top, left + width, top + height)
        crop = dense.resize((32, 32), Image.Resampling.NEAREST, box=box)
        if rng.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        sample = images[0, index]
        assert sample["image"].shape == (3, 32, 32)
        assert np.array_equal(sample["part_labels"].numpy(), np.array(crop)[::8, ::8])
    assert images[1, 0]["image"].shape == (3, 64, 64)


def test_watched_images_are_balanced_unannotated_and_not_trained_on(
    shapes_root: Path, labels: Path
) -> None:
    module = data(shapes_root, labels, watch_images=3)
    module.prepare_data()
    module.setup("fit")
    annotated = {row.key for row in read_annotations(shapes_root / "pinpp", module.vocabulary)}
    watched = {key for key, _ in module.watched}
    trained = {key for key, _ in module.train_set.images}
    assert sorted(label for _, label in module.watched) == [0, 1, 2]
    assert not watched & annotated
    assert not watched & trained
    assert len(watched | trained) == 36
    assert module.watched_images(0)[0]["image"].shape == (3, 64, 64)
    module.train_set.sides = [32]
    assert module.watched_images(0)[0]["image"].shape == (3, 32, 32)


def test_no_more_than_an_eighth_is_watched(shapes_root: Path, labels: Path) -> None:
    module = data(shapes_root, labels, watch_images=500)
    module.prepare_data()
    module.setup("fit")
    assert len(module.watched) == 36 // 8
    assert len(module.train_set) == 32


def test_a_label_stride_that_does_not_divide_the_sizes_is_refused(
    shapes_root: Path, labels: Path
) -> None:
    with pytest.raises(ValueError, match="label_stride=12 does not divide 32"):
        data(
            shapes_root, labels, image_size=96, label_stride=12, progressive=ProgressiveResolution()
        )
