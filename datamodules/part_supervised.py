"""Stage 3 data: image crops with the part labels of their supervised cells."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from lightning.pytorch import LightningDataModule
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.files.errors import UserError
from datamodules.images.device_augmentation import augment
from datamodules.images.image_crops import Resampling
from datamodules.images.image_lists import read_image_list
from datamodules.images.imagenet_folder import list_images, require_class_folders
from datamodules.images.progressive_resolution import STRIDE, ProgressiveResolution
from datamodules.images.recognition import RecognitionImages, balanced_positions
from datamodules.images.resized_store import ResizedStore
from datamodules.images.sampling import EpochSampler, require_an_image_each
from datamodules.labels.composite_store import (
    CompositeStore,
    composite_batch,
    store_name,
    write_batches,
)
from datamodules.labels.label_set import checked_shards, provenance_hash
from datamodules.labels.part_crops import PartSupervisedImages
from datamodules.labels.pseudo_labels import finished_shards, read_shard
from datamodules.masks.part_labels import ImageParts


class PartSupervisedDataModule(LightningDataModule):
    """Training images with composite part labels, validation images with their class.

    A human annotation replaces an image's pseudo labels (PartImageNet++ §4.1); an image that
    stage 2 could not read is left out. Part labels of an image without any part pixel in the crop
    have weight 0. Colours are changed and rectangles erased on the device, see
    `device_augmentation`; validation images are left alone.

    Args:
        imagenet: folder with `train/` and `val/`.
        pinpp: folder with the human annotations.
        labels: stage 2 run folder.
        image_size: side of the crops in pixels.
        label_stride: pixels per supervised cell, 8 when the last three blocks are supervised.
        score_threshold: least score of a pseudo label that is used.
        pseudo_weight: weight of the part loss of images with pseudo labels; 0 supervises parts
            with human annotations alone.
        human_weight: weight of the part loss of images with human annotations.
        min_scale: least share of the image's area that a training crop covers.
        color_jitter: largest relative change of brightness, contrast and saturation.
        random_erasing: probability of erasing a rectangle of a training image.
        resampling: which library resizes training images, see `image_crops.read_crop`.
        resized: folder of smaller copies of the training images, made by
            `pipeline.annotations.resize_images`; None reads the originals.
        val_resize: shorter side of validation images before the centre crop, in pixels.
        val_images: size of the class-balanced validation subset.
        held_out: list of `path label` lines, images of `train/` that are not trained on but
            validated on in place of `val/`, for cross-validation; None for none.
        progressive: course of the size of training crops, relative to `image_size`; None for none.
        watch_images: training images that are not trained on, so that the robustness on them can be
            watched meanwhile: class-balanced, of those without human annotations if there are any,
            at most an eighth of all; None for none.
        batch_size: images in a batch of one process.
        num_workers: loading processes.
        seed: seed of order, crops and subset.

    Raises:
        MissingInputError: if there is no such list.
        UserError: if the label stride does not divide the image size, or a weight, a
            probability or the jitter is out of range, `val/` has no class folders, or the list
            names images that `train/` does not hold.
    """

    def __init__(
        self,
        imagenet: Path,
        pinpp: Path,
        labels: Path,
        image_size: int = 224,
        label_stride: int = 8,
        score_threshold: float = 0.0,
        pseudo_weight: float = 1.0,
        human_weight: float = 1.0,
        min_scale: float = 0.08,
        color_jitter: float = 0.1,
        random_erasing: float = 0.0,
        resampling: Resampling = "torch",
        resized: Path | None = None,
        val_resize: int = 256,
        val_images: int = 10_000,
        held_out: Path | None = None,
        progressive: ProgressiveResolution | None = None,
        watch_images: int | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if image_size % label_stride:
            raise UserError(f"image_size={image_size} is no multiple of {label_stride=}")
        if progressive is not None and STRIDE % label_stride:
            raise UserError(f"{label_stride=} does not divide {STRIDE}: set progressive=null")
        if min(pseudo_weight, human_weight) < 0:
            raise UserError(f"{pseudo_weight=} and {human_weight=} must not be negative")
        if watch_images is not None and watch_images < 0:
            raise UserError(f"{watch_images=} must not be negative")
        if not (0 <= random_erasing <= 1 and 0 <= color_jitter <= 1):
            raise UserError(f"{random_erasing=} and {color_jitter=} must lie between 0 and 1")
        self.imagenet = imagenet
        self.pinpp = pinpp
        self.labels = labels
        self.image_size = image_size
        self.label_stride = label_stride
        self.score_threshold = score_threshold
        self.pseudo_weight = pseudo_weight
        self.human_weight = human_weight
        self.min_scale = min_scale
        self.color_jitter = color_jitter
        self.random_erasing = random_erasing
        self.resampling: Resampling = resampling
        self.resized = None if resized is None else ResizedStore(resized)
        self.val_resize = val_resize
        self.val_images = val_images
        self.progressive = progressive
        self.watch_images = watch_images or 0
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.vocabulary = PartVocabulary.from_pinpp(pinpp, imagenet)
        self.held_out: list[tuple[str, int]] = []
        if held_out is None:
            require_class_folders(imagenet / "val")
        else:
            self.held_out = self._listed(held_out)

    @property
    def object_parts(self) -> Tensor:
        """Which parts can occur on which object, bool `(num_objects, K + 1)`."""
        return self.vocabulary.object_parts

    @cached_property
    def composites(self) -> Path:
        """File of the composite labels, named after all that it derives from."""
        labels = f"{self.score_threshold} {provenance_hash(self.labels)}"
        images = (key for key, _ in list_images(self.imagenet / "train"))
        files = *finished_shards(self.labels), *sorted(self.pinpp.glob("json/[!.]*.json"))
        name = store_name(chain((self.vocabulary.content_hash, labels), images), files)
        return self.labels / "composite" / name

    def prepare_data(self) -> None:
        """Derives the composites from pseudo labels and annotations once per node.

        Other images, labels or annotations make other composites.

        Raises:
            UserError: if the labels are not one label set of these images (`checked_shards`), or
                annotations are of images that are listed under another name.
        """
        if self.composites.is_file():
            return
        human = {
            row.key: row
            for row in read_annotations(self.pinpp, self.vocabulary, self.imagenet / "train")
        }
        images = {key for key, _ in list_images(self.imagenet / "train")}
        if unlisted := human.keys() - images:  # file systems may take one name for another
            raise UserError(
                f"{self.pinpp} annotates {min(unlisted)} and {len(unlisted) - 1} more images that "
                f"{self.imagenet / 'train'} lists under other names (capitals, accents): write "
                "file_name as the folder does"
            )
        shards = checked_shards(self.labels, self.vocabulary.objects, images)
        files = list(shards)
        annotated = [
            {key: human[key] for key in table["key"].to_pylist() if key in human}
            for table in shards.values()
        ]
        derive = partial(
            _composites_of,
            score_threshold=self.score_threshold,
            inclusions=self.vocabulary.inclusions,
        )
        with ExitStack() as stack:
            derived: Iterator[pa.RecordBatch] = map(derive, files, annotated)
            if self.num_workers > 1:
                # forked workers of a process with threads may hang
                context = multiprocessing.get_context("spawn")
                pool = stack.enter_context(ProcessPoolExecutor(self.num_workers, context))
                derived = pool.map(derive, files, annotated)
            shown = track(derived, "Composite labels", total=len(files))
            write_batches(self.composites, (batch for batch in shown if batch.num_rows))

    def setup(self, stage: str) -> None:
        """Opens the composites and lists the validation images.

        Raises:
            UserError: if the smaller copies do not fit the part labels, or the course of the sizes
                has no end.
        """
        store = CompositeStore(self.composites)
        copies = self.resized
        weights = np.where(store.column("human"), self.human_weight, self.pseudo_weight)
        left_out = {key for key, _ in self.held_out}
        images = list(store.images())
        rows = [row for row, (key, _) in enumerate(images) if key not in left_out]
        kept_out = self._rows_to_watch(rows, images, store.column("human"))
        self.watched = [images[row] for row in sorted(kept_out)]
        rows = [row for row in rows if row not in kept_out]
        sides: list[int] = []
        if self.progressive is not None and self.trainer is not None:
            sides = self.progressive.sides(self.image_size, self.trainer.max_epochs)
        self.train_set = PartSupervisedImages(
            self.imagenet / "train" if copies is None else copies.images,
            store,
            self.image_size,
            self.label_stride,
            self.min_scale,
            self.color_jitter,
            self.seed,
            rows=rows,
            weights=weights,
            random_erasing=self.random_erasing,
            resampling=self.resampling,
            resized_side=None if copies is None else copies.side,
            sides=sides,
        )
        if copies is not None:
            keys = [key for key, _ in images]
            copies.check(keys, store.column("height"), store.column("width"))
        split = self.imagenet / ("train" if self.held_out else "val")
        val = self.held_out or list_images(split)
        order = balanced_positions([label for _, label in val], self.seed)[: self.val_images]
        self.val_set = RecognitionImages(
            split, [val[i] for i in order], self.image_size, self.val_resize
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches of this rank, from where the loaded checkpoint stopped.

        Raises:
            UserError: on every process, if there are fewer images than one step takes.
        """
        sampler = EpochSampler.for_trainer(
            self.trainer, len(self.train_set), self.batch_size, self.seed
        )
        if len(sampler) < self.batch_size:  # the last batch is dropped: there would be no step
            raise UserError(
                f"{len(self.train_set)} images to train on are fewer than a step takes "
                f"(batch_size={self.batch_size}, processes: {sampler.world_size}): lower "
                "--data.init_args.batch_size"
            )
        return self._loader(self.train_set, sampler=sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation batches of this rank."""
        rank, world = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        require_an_image_each(len(self.val_set), world)
        shard = torch.utils.data.Subset(self.val_set, range(rank, len(self.val_set), world))
        return self._loader(shard)

    def watched_images(self, epoch: int) -> RecognitionImages:
        """Centre crops of the `watch_images`, of the size that an epoch trains on."""
        side = self.train_set.side(epoch)
        resize = round(self.val_resize * side / self.image_size)
        return RecognitionImages(self.imagenet / "train", self.watched, side, resize)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Augments training batches on the device; their images become float in [0, 1]."""
        return augment(batch)

    def _rows_to_watch(
        self, rows: list[int], images: list[tuple[str, int]], human: np.ndarray
    ) -> set[int]:
        """Which of the rows are `watch_images`."""
        number = min(self.watch_images, len(rows) // 8)
        if not number:
            return set()
        unannotated = [row for row in rows if not human[row]]
        choice = unannotated if len(unannotated) > number else rows
        order = balanced_positions([images[row][1] for row in choice], self.seed)
        return {choice[position] for position in order[:number]}

    def _listed(self, file: Path) -> list[tuple[str, int]]:
        held_out = read_image_list(file, self.vocabulary.objects)
        held = {key for key, _ in held_out}
        if unknown := held - {key for key, _ in list_images(self.imagenet / "train")}:
            raise UserError(
                f"{file} holds out {min(unknown)}, which {self.imagenet / 'train'} does not hold"
            )
        return held_out

    def _loader(self, dataset: Dataset[Any], **kwargs: Any) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            **kwargs,
        )


def _composites_of(
    file: Path,
    annotated: dict[str, ImageParts],
    score_threshold: float,
    inclusions: tuple[tuple[int, int], ...],
) -> pa.RecordBatch:
    """Composites of one shard, annotations in place of pseudo labels, unreadable images left out.

    A function of its own so that processes can share the shards: a million images take hours.
    """
    rows = [
        annotated.get(row.key, row.confident(score_threshold))
        for row in read_shard(file)
        if not row.error
    ]
    return composite_batch(rows, inclusions, annotated)
