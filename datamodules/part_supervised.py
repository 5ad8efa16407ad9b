"""Stage 3 data: image crops with the part labels of their supervised cells."""

import hashlib
import math
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.composite_store import CompositeStore, write_composites
from datamodules.imagenet_folder import list_images, read_image
from datamodules.part_labels import ImageParts
from datamodules.part_vocabulary import PartVocabulary
from datamodules.pinpp import read_annotations
from datamodules.pseudo_labels import read_labels
from datamodules.recognition import RecognitionImages, balanced_order, to_tensor
from datamodules.sampling import EpochSampler


class PartSupervisedData(LightningDataModule):
    """Training images with composite part labels, validation images with their class.

    A human annotation replaces an image's pseudo labels (PartImageNet++ §4.1); an image that
    stage 2 could not read is left out.

    Args:
        imagenet: folder with `train/` and `val/`.
        pinpp: folder with the human annotations.
        labels: stage 2 run folder.
        image_size: side of the crops in pixels.
        label_stride: pixels per supervised cell, 8 when the last three blocks are supervised.
        score_threshold: least score of a pseudo label that is used.
        min_scale: least share of the image's area that a training crop covers.
        color_jitter: largest relative change of brightness, contrast and saturation.
        val_resize: shorter side of validation images before the centre crop, in pixels.
        val_images: size of the class-balanced validation subset.
        batch_size: images in a batch of one process.
        num_workers: loading processes.
        seed: seed of order, crops and subset.

    Raises:
        ValueError: if the label stride does not divide the image size.
    """

    def __init__(
        self,
        imagenet: Path,
        pinpp: Path,
        labels: Path,
        image_size: int = 224,
        label_stride: int = 8,
        score_threshold: float = 0.0,
        min_scale: float = 0.08,
        color_jitter: float = 0.1,
        val_resize: int = 256,
        val_images: int = 10_000,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if image_size % label_stride:
            raise ValueError(f"image_size={image_size} is no multiple of {label_stride=}")
        self.imagenet = imagenet
        self.pinpp = pinpp
        self.labels = labels
        self.image_size = image_size
        self.label_stride = label_stride
        self.score_threshold = score_threshold
        self.min_scale = min_scale
        self.color_jitter = color_jitter
        self.val_resize = val_resize
        self.val_images = val_images
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.vocabulary = PartVocabulary.from_pinpp(pinpp, imagenet)

    @property
    def object_parts(self) -> Tensor:
        """Which parts can occur on which object, bool `(num_objects, K + 1)`."""
        return self.vocabulary.object_parts

    @cached_property
    def composites(self) -> Path:
        """File of the composite labels, named after all that it derives from."""
        digest = hashlib.sha256(f"{self.vocabulary.content_hash} {self.score_threshold}".encode())
        sources = [*self.labels.glob("labels/*.parquet"), *self.pinpp.glob("json/*.json")]
        for file in sorted(sources):
            state = file.stat()
            digest.update(f"{file.name} {state.st_size} {state.st_mtime_ns}".encode())
        return self.labels / "composite" / f"{digest.hexdigest()[:16]}.arrow"

    def prepare_data(self) -> None:
        """Derives the composites from pseudo labels and annotations once per node."""
        if self.composites.is_file():
            return
        pseudo = read_labels(self.labels)
        human = {
            row.key: row
            for row in read_annotations(self.pinpp, self.vocabulary, self.imagenet / "train")
        }
        missing = human.keys() - {row.key for row in pseudo}
        if missing:
            raise ValueError(
                f"{self.labels} has no row for {min(missing)} and {len(missing) - 1} more "
                "annotated images: the image list has changed, run make stage2-pseudolabels again"
            )
        rows = (self._chosen(row, human) for row in pseudo if not row.error)
        write_composites(self.composites, rows, self.vocabulary.inclusions)

    def _chosen(self, row: ImageParts, human: dict[str, ImageParts]) -> ImageParts:
        if row.key in human:
            return human[row.key]
        kept = tuple(part for part in row.instances if part.score >= self.score_threshold)
        return replace(row, instances=kept)

    def setup(self, stage: str) -> None:
        """Opens the composites and lists the validation images."""
        self.train_set = PartSupervisedImages(
            self.imagenet / "train",
            CompositeStore(self.composites),
            self.image_size,
            self.label_stride,
            self.min_scale,
            self.color_jitter,
            self.seed,
        )
        val = list_images(self.imagenet / "val")
        order = balanced_order([label for _, label in val], self.seed)[: self.val_images]
        self.val_set = RecognitionImages(
            self.imagenet / "val", [val[i] for i in order], self.image_size, self.val_resize
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches of this rank, from where the loaded checkpoint stopped."""
        sampler = EpochSampler.for_trainer(
            self.trainer, len(self.train_set), self.batch_size, self.seed
        )
        return self._loader(self.train_set, sampler=sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation batches of this rank."""
        rank, world = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        shard = torch.utils.data.Subset(self.val_set, range(rank, len(self.val_set), world))
        return self._loader(shard)

    def _loader(self, dataset: Dataset[Any], **kwargs: Any) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            **kwargs,
        )


class PartSupervisedImages(Dataset[dict[str, Any]]):
    """Random crops with the part labels of their cells, a function of (seed, epoch, index).

    Labels are taken where nearest-neighbour resizing of the crop's label map to `image_size`
    and then to the supervised cells would take them, straight from the run lengths: at the
    first pixel of every `label_stride`-th column and row.

    Args:
        folder: `imagenet/train`.
        store: composite labels.
        image_size: side of the crops in pixels.
        label_stride: pixels per supervised cell.
        min_scale: least share of the image's area that a crop covers.
        color_jitter: largest relative change of brightness, contrast and saturation.
        seed: seed of the crops.
    """

    def __init__(
        self,
        folder: Path,
        store: CompositeStore,
        image_size: int,
        label_stride: int,
        min_scale: float,
        color_jitter: float,
        seed: int,
    ) -> None:
        self.folder = folder
        self.store = store
        self.images = list(store.images())
        self.image_size = image_size
        self.label_stride = label_stride
        self.min_scale = min_scale
        self.color_jitter = color_jitter
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Any]:
        epoch, index = item
        rng = np.random.default_rng((self.seed, epoch, index))
        key, label = self.images[index]
        image = read_image(self.folder / key)
        runs = self.store.runs(index)
        if (runs.height, runs.width) != (image.height, image.width):
            raise ValueError(
                f"{self.folder / key} is {image.height}x{image.width}, its part labels are "
                f"{runs.height}x{runs.width}: run make stage2-pseudolabels for these images"
            )
        top, left, height, width = random_crop(rng, image.height, image.width, self.min_scale)
        flip = rng.random() < 0.5
        size = self.image_size
        box = (left, top, left + width, top + height)
        crop = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
        if flip:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        cells = np.arange(0, size, self.label_stride)
        rows = top + ((cells + 0.5) * height / size).astype(np.int64)
        columns = size - 1 - cells if flip else cells
        columns = left + ((columns + 0.5) * width / size).astype(np.int64)
        part_labels = torch.from_numpy(runs.at(rows, columns).astype(np.int64))
        return {
            "image": to_tensor(self._jitter(crop, rng)),
            "label": label,
            "part_labels": part_labels,
            "part_weight": float(part_labels.any()),
            "key": key,
        }

    def _jitter(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        if self.color_jitter:
            for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                image = enhance(image).enhance(1 + rng.uniform(-1, 1) * self.color_jitter)
        return image


def random_crop(
    rng: np.random.Generator, height: int, width: int, min_scale: float
) -> tuple[int, int, int, int]:
    """A random resized crop as Inception trains on: area share and aspect ratio at random.

    Args:
        rng: source of randomness.
        height: of the image in pixels.
        width: of the image in pixels.
        min_scale: least share of the area.

    Returns:
        Top, left, height and width in pixels; the largest centred crop of a permitted aspect
        ratio if ten tries do not fit.
    """
    for _ in range(10):
        area = height * width * rng.uniform(min_scale, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = rng.integers(0, [height - h + 1, width - w + 1]).tolist()
            return top, left, h, w
    h, w = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w
