from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.masks.part_labels import ImageParts, decode_masks
from datamodules.masks.part_masks import composite
from pipeline.drawing.palette import part_colours
from pipeline.drawing.part_overlays import overlay
from pipeline.validation.part_overlays import PartOverlays


class OneImageData(LightningDataModule):
    """Hands the given batch to validation."""

    def __init__(self, vocabulary: PartVocabulary, batch: dict[str, Any]) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.batch = batch

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader([self.batch], batch_size=None)


class Segmenter(LightningModule):
    """Predicts what it was given."""

    def __init__(self, found: Callable[[], list[dict[str, Tensor]]]) -> None:
        super().__init__()
        self.found = found

    def predict(self, images: list[Tensor], labels: Tensor) -> list[dict[str, Tensor]]:
        return self.found()[: len(images)]

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        return None


class Recogniser(LightningModule):
    """Predicts part 1 in the left half."""

    def predict_parts(self, images: Tensor) -> Tensor:
        parts = torch.zeros(len(images), 8, 8, dtype=torch.int64)
        parts[:, :, :4] = 1
        return parts

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        return None


@pytest.fixture(scope="module")
def vocabulary(shapes_root: Path) -> PartVocabulary:
    return PartVocabulary.from_pinpp(shapes_root / "pinpp", shapes_root / "imagenet")


@pytest.fixture(scope="module")
def parts(shapes_root: Path, vocabulary: PartVocabulary) -> ImageParts:
    rows = read_annotations(shapes_root / "pinpp", vocabulary, shapes_root / "imagenet" / "train")
    return max(rows, key=lambda row: len(row.instances))


def detection_batch(parts: ImageParts) -> dict[str, Any]:
    masks = torch.from_numpy(decode_masks(parts))
    labels = torch.tensor([one.part for one in parts.instances])
    image = torch.randint(0, 256, (3, parts.height, parts.width), dtype=torch.uint8)
    return {
        "image": [image],
        "target": [{"labels": labels, "masks": masks, "boxes": torch.zeros(len(labels), 4)}],
        "label": torch.tensor([parts.label]),
        "key": [parts.key],
    }


def validate(module: LightningModule, data: LightningDataModule, root: Path) -> list[np.ndarray]:
    trainer = Trainer(
        accelerator="cpu",
        logger=TensorBoardLogger(root, name="", version=""),
        callbacks=[PartOverlays(side=128)],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=root,
    )
    trainer.validate(module, datamodule=data, verbose=False)
    trainer.logger.experiment.flush()
    events = EventAccumulator(str(root), size_guidance={"images": 0})
    events.Reload()
    if "val/parts" not in events.Tags()["images"]:
        return []
    stored = [event.encoded_image_string for event in events.Images("val/parts")]
    return [np.array(Image.open(BytesIO(content)).convert("RGB")) for content in stored]


def test_stage_1_picture_shows_image_target_and_prediction(
    vocabulary: PartVocabulary, parts: ImageParts, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    batch = detection_batch(parts)
    target = batch["target"][0]
    # The second prediction is too weak to be drawn
    strong = {"labels": target["labels"][:1], "masks": target["masks"][:1].bool()}
    found = {
        "labels": target["labels"][:2],
        "masks": target["masks"][:2].bool(),
        "scores": torch.tensor([0.9, 0.1])[: len(target["labels"])],
    }
    pictures = validate(Segmenter(lambda: [found]), OneImageData(vocabulary, batch), tmp_path)
    assert len(pictures) == 1
    picture = pictures[0]
    colours = part_colours(vocabulary)
    image = batch["image"][0].permute(1, 2, 0).numpy()
    large = np.array(Image.fromarray(image).resize((128, 128), Image.Resampling.BICUBIC))

    def enlarged(mask: np.ndarray) -> np.ndarray:
        return np.kron(mask, np.ones((128 // mask.shape[0],) * 2, dtype=mask.dtype))

    expected = overlay(large, enlarged(composite(parts, vocabulary.inclusions)), colours)
    assert np.array_equal(picture[:128, :128], large)
    assert np.array_equal(picture[:128, 132:260], expected)
    only = strong["masks"][0].numpy() * int(strong["labels"][0])
    assert np.array_equal(picture[:128, 264:392], overlay(large, enlarged(only), colours))


def test_stage_3_picture_has_a_hole_where_there_is_no_label(
    vocabulary: PartVocabulary, tmp_path: Path
) -> None:
    batch = {"image": torch.rand(6, 3, 64, 64), "label": torch.zeros(6, dtype=torch.int64)}
    pictures = validate(Recogniser(), OneImageData(vocabulary, batch), tmp_path)
    assert pictures[0].shape[0] == 4 * (128 + 4)
    assert (pictures[0][:128, 132:260] == 255).all()
    image = pictures[0][:128, :128].astype(float)
    difference = np.abs(pictures[0][:128, 264:392] - image).sum(axis=-1)
    assert (difference[:, 64:] == 0).all()
    assert (difference[:, :64] > 0).mean() > 0.95


def test_stage_3_picture_draws_part_labels_of_weight_one(vocabulary: PartVocabulary) -> None:
    batch = {
        "image": torch.rand(2, 3, 64, 64),
        "part_labels": torch.ones(2, 8, 8, dtype=torch.int64),
        "part_weight": torch.tensor([1.0, 0.0]),
    }
    picture = PartOverlays(side=64).draw(Recogniser(), batch, vocabulary)
    assert picture is not None
    assert not (picture[:64, 68:132] == 255).all()
    assert (picture[68:132, 68:132] == 255).all()


@pytest.mark.parametrize(
    "batch",
    [
        {"image": [], "target": [], "label": torch.zeros(0, dtype=torch.int64)},
        {"label": torch.zeros(1, dtype=torch.int64)},
        {"image": [torch.zeros(3, 8, 8)], "target": [], "label": torch.zeros(1)},
    ],
    ids=["empty", "without images", "without targets"],
)
def test_odd_batches_do_not_stop_validation(
    vocabulary: PartVocabulary, batch: dict[str, Any], tmp_path: Path
) -> None:
    module = Segmenter(lambda: [])
    assert validate(module, OneImageData(vocabulary, batch), tmp_path) == []


def test_a_segmenter_of_objects_alone_is_passed_over(
    vocabulary: PartVocabulary, parts: ImageParts, tmp_path: Path
) -> None:
    module = Segmenter(lambda: pytest.fail("it has no parts to predict"))
    module.finds_parts = False
    assert validate(module, OneImageData(vocabulary, detection_batch(parts)), tmp_path) == []


def test_image_without_parts_is_drawn_plain(vocabulary: PartVocabulary, tmp_path: Path) -> None:
    nothing = {
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, 32, 32, dtype=torch.uint8),
        "boxes": torch.zeros(0, 4),
    }
    batch = {"image": [torch.rand(3, 32, 32)], "target": [nothing], "label": torch.tensor([0])}
    found = nothing | {"scores": torch.zeros(0)}
    data = OneImageData(vocabulary, batch)
    picture = validate(Segmenter(lambda: [found]), data, tmp_path)[0]
    assert np.array_equal(picture[:128, :128], picture[:128, 264:392])


def test_other_loggers_are_passed_over(vocabulary: PartVocabulary, tmp_path: Path) -> None:
    trainer = Trainer(
        accelerator="cpu",
        logger=CSVLogger(tmp_path),
        callbacks=[PartOverlays()],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batch = {"image": torch.rand(1, 3, 64, 64), "label": torch.zeros(1, dtype=torch.int64)}
    trainer.validate(Recogniser(), datamodule=OneImageData(vocabulary, batch), verbose=False)
