"""Stage 2 data: all of ImageNet train, in shards that are labelled once."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.imagenet_folder import list_images, read_image
from datamodules.part_vocabulary import PartVocabulary
from datamodules.pseudo_labels import SCHEMA


def shard_path(run: Path, shard: int) -> Path:
    """Where a stage 2 run folder keeps a shard: `labels/<shard>.parquet`."""
    return run / "labels" / f"{shard:05d}.parquet"


def shard_is_complete(path: Path, keys: Sequence[str]) -> bool:
    """Whether a shard exists, is undamaged and holds exactly these images in this order."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException):
        return False
    return table.schema.equals(SCHEMA) and table["key"].to_pylist() == list(keys)


class ShardBatches(Dataset[dict[str, Any]]):
    """Batches of images, each within one shard; an item is a whole batch.

    An image that cannot be decoded has an empty image `(3, 0, 0)` and says why in `error`.

    Args:
        split: folder of the images.
        images: pairs of key and label.
        batches: (shard, first image, image after the last) of each batch.
    """

    def __init__(
        self,
        split: Path,
        images: Sequence[tuple[str, int]],
        batches: Sequence[tuple[int, int, int]],
    ) -> None:
        self.split = split
        self.images = images
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict[str, Any]:
        shard, start, stop = self.batches[index]
        items = self.images[start:stop]
        decoded = [self._decode(key) for key, _ in items]
        return {
            "image": [image for image, _ in decoded],
            "label": torch.tensor([label for _, label in items], dtype=torch.int64),
            "key": [key for key, _ in items],
            "error": [error for _, error in decoded],
            "shard": shard,
        }

    def _decode(self, key: str) -> tuple[Tensor, str]:
        try:
            pixels = np.array(read_image(self.split / key))
        except (ValueError, OSError) as error:
            return torch.zeros(3, 0, 0, dtype=torch.uint8), str(error)
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), ""


class ImageNetShards(LightningDataModule):
    """ImageNet train for `predict`, annotated images too, in shards of the sorted image list.

    The shard is the unit of work: rank r of R takes every R-th of the shards that the trainer's
    run folder lacks, and batches end at a shard's border, so labels depend neither on the number
    of processes nor on where an earlier run was cut.

    Batches are dicts: `image` list of `(3, H, W)` uint8, `label (B,)` int64, `key` and `error`
    lists of str, `shard` int. A rank without work gets one batch without images whose shard is
    -1, so that the hooks, and the barriers in them, run on every rank.

    Args:
        imagenet: folder with `train/<object>/`.
        pinpp: annotation folder that defines the part vocabulary.
        batch_size: images per batch and process.
        num_workers: decoding processes per rank.
        seed: unused, labelling draws no random numbers; every datamodule takes one.
        shard_size: images per shard.

    Attributes:
        vocabulary: the part vocabulary.

    Raises:
        FileNotFoundError: if a folder is missing.
        ValueError: if an annotation file is malformed or a size is not positive.
    """

    def __init__(
        self,
        imagenet: Path,
        pinpp: Path,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        shard_size: int = 1000,
    ) -> None:
        super().__init__()
        if batch_size < 1 or shard_size < 1:
            raise ValueError(
                f"batch_size ({batch_size}) and shard_size ({shard_size}) must be at least 1"
            )
        self.split = Path(imagenet) / "train"
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.shard_size = shard_size
        self.vocabulary = PartVocabulary.from_pinpp(Path(pinpp), Path(imagenet))

    @property
    def object_parts(self) -> Tensor:
        """Which parts can occur on which object: bool `(num_objects, K + 1)`."""
        return self.vocabulary.object_parts

    @cached_property
    def images(self) -> list[tuple[str, int]]:
        """Sorted pairs of key and label of all train images."""
        return list_images(self.split)

    @property
    def num_shards(self) -> int:
        """Number of shards; the last may be smaller."""
        return -(-len(self.images) // self.shard_size)

    def shard_keys(self, shard: int) -> list[str]:
        """Keys of a shard's images, in order."""
        start = shard * self.shard_size
        return [key for key, _ in self.images[start : start + self.shard_size]]

    def missing_shards(self, run: Path) -> list[int]:
        """Shards that a run folder lacks or holds incomplete or damaged."""
        return [
            shard
            for shard in range(self.num_shards)
            if not shard_is_complete(shard_path(run, shard), self.shard_keys(shard))
        ]

    @property
    def provenance(self) -> dict[str, Any]:
        """What decides which image is in which shard, and what the part ids mean."""
        keys = "\n".join(key for key, _ in self.images)
        return {
            "images": len(self.images),
            "image_list_sha256": hashlib.sha256(keys.encode()).hexdigest(),
            "shard_size": self.shard_size,
            "vocabulary_hash": self.vocabulary.content_hash,
        }

    def shard_batches(self, shards: Sequence[int]) -> list[tuple[int, int, int]]:
        """Batches (shard, first image, image after the last) of the given shards, in order."""
        batches = []
        for shard in shards:
            start = shard * self.shard_size
            stop = min(start + self.shard_size, len(self.images))
            batches += [
                (shard, first, min(first + self.batch_size, stop))
                for first in range(start, stop, self.batch_size)
            ]
        return batches

    def predict_dataloader(self) -> DataLoader[dict[str, Any]]:
        """This rank's share of the missing shards."""
        assert self.trainer is not None
        strategy = self.trainer.strategy
        # One rank looks and tells the others: a shard that appears in between would shift shares.
        missing: list[int] = []
        if strategy.is_global_zero:
            missing = self.missing_shards(Path(self.trainer.default_root_dir))
        missing = strategy.broadcast(missing)
        share = missing[self.trainer.global_rank :: self.trainer.world_size]
        batches = self.shard_batches(share) or [(-1, 0, 0)]
        return DataLoader(
            ShardBatches(self.split, self.images, batches),
            batch_size=None,
            num_workers=self.num_workers,
        )
