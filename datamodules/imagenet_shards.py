"""Stage 2 data: all of ImageNet train, in shards that are labelled once."""

import hashlib
import signal
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.errors import UserError
from datamodules.images.image_files import BadImageError, read_image
from datamodules.images.imagenet_folder import list_images
from datamodules.labels.label_set import provenance_hash, shard_path
from datamodules.labels.pseudo_labels import PROVENANCE, SCHEMA, opened_shard
from datamodules.labels.shard_claims import ShardClaims

# A batch before it is decoded: shard, position of its first image in it, keys and labels.
BatchIndex = tuple[int, int, list[str], list[int]]


def shard_is_complete(path: Path, keys: pa.Array, source: str) -> bool:
    """Whether a shard exists, is undamaged and holds exactly these images' labels.

    The footer tells most that are not; the checksums of the pages find the rest.

    Args:
        path: the shard.
        keys: its images, in order.
        source: `provenance_hash` of its run.
    """
    try:
        with opened_shard(path) as shard:
            made = (shard.schema_arrow.metadata or {}).get(PROVENANCE, b"")
            if shard.metadata.num_rows != len(keys) or made != source.encode():
                return False
            table = shard.read()
    except UserError:
        return False
    return table.schema.equals(SCHEMA) and table["key"].equals(pa.chunked_array([keys]))


class ShardBatches(Dataset[dict[str, Any]]):
    """Decodes batches; it has no list of images, so that a million costs workers no memory.

    An image that cannot be decoded has an empty image `(3, 0, 0)` and says why in `error`. One
    that is gone, or that the operating system fails to read, raises a `UserError`.

    Args:
        split: folder of the images.
    """

    def __init__(self, split: Path) -> None:
        self.split = split

    def __getitem__(self, index: BatchIndex) -> dict[str, Any]:
        shard, start, keys, labels = index
        decoded = [self._decode(key) for key in keys]
        return {
            "image": [image for image, _ in decoded],
            "label": torch.tensor(labels, dtype=torch.int64),
            "key": keys,
            "error": [error for _, error in decoded],
            "shard": shard,
            "start": start,
        }

    def _decode(self, key: str) -> tuple[Tensor, str]:
        try:
            pixels = np.array(read_image(self.split / key))
        except BadImageError as error:  # nothing else tells of the image
            return torch.zeros(3, 0, 0, dtype=torch.uint8), str(error)
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), ""


class DrawnBatches(Sampler[BatchIndex]):
    """The batches of shards that are drawn one by one, as the one before is used up.

    It has no length: how many shards a process gets is known at the end.
    """

    def __init__(self, data: "ImageNetShardsDataModule", shards: Iterable[int]) -> None:
        self.data = data
        self.shards = shards

    def __iter__(self) -> Iterator[BatchIndex]:
        for shard in self.shards:
            images, size = self.data.shard(shard), self.data.batch_size
            for start in range(0, len(images), size):
                batch = images.slice(start, size)
                yield shard, start, batch["key"].to_pylist(), batch["label"].to_pylist()


class ImageNetShardsDataModule(LightningDataModule):
    """ImageNet train for `predict`, annotated images too, in shards of the sorted image list.

    The shard is the unit of work: processes draw the shards that the trainer's run folder lacks
    one by one (`ShardClaims`), and batches end at a shard's border, so labels depend neither on
    the number of processes nor on where an earlier run was cut. Processes get different numbers
    of batches, possibly none.

    Batches are dicts: `image` list of `(3, H, W)` uint8, `label (B,)` int64, `key` and `error`
    lists of str, `shard` int, `start` int, the position of the first image in the shard.

    Args:
        imagenet: folder with `train/<object>/`.
        pinpp: annotation folder that defines the part vocabulary.
        batch_size: images per batch and process.
        num_workers: decoding processes per rank.
        seed: unused, labelling draws no random numbers; every datamodule takes one.
        shard_size: images per shard.

    Attributes:
        vocabulary: the part vocabulary.
        missing: shards that this start of the run has to make, once the loader was asked for.
        claims: how its processes share them, None in a dry run.

    Raises:
        MissingInputError: if a folder is missing.
        UserError: if an annotation file is malformed or a size is not positive.
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
            raise UserError(
                f"batch_size ({batch_size}) and shard_size ({shard_size}) must be at least 1"
            )
        self.split = Path(imagenet) / "train"
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.shard_size = shard_size
        self.vocabulary = PartVocabulary.from_pinpp(Path(pinpp), Path(imagenet))
        self.missing: list[int] = []
        self.claims: ShardClaims | None = None

    @property
    def object_parts(self) -> Tensor:
        """Which parts can occur on which object: bool `(num_objects, K + 1)`."""
        return self.vocabulary.object_parts

    @cached_property
    def images(self) -> pa.Table:
        """All train images by key: columns `key` (str) and `label` (int32).

        Arrow keeps the 1.28 million keys in 50 MB, Python objects take 200 MB.
        """
        keys, labels = zip(*list_images(self.split), strict=True)
        return pa.table({"key": pa.array(keys), "label": pa.array(labels, pa.int32())})

    @property
    def num_shards(self) -> int:
        """Number of shards; the last may be smaller."""
        return -(-len(self.images) // self.shard_size)

    def shard(self, shard: int) -> pa.Table:
        """Images of a shard, in order."""
        return self.images.slice(shard * self.shard_size, self.shard_size)

    def shard_length(self, shard: int) -> int:
        """Number of images of a shard."""
        return min(self.shard_size, len(self.images) - shard * self.shard_size)

    def missing_shards(self, run: Path) -> list[int]:
        """Shards that a run folder lacks or holds damaged or made of something else."""
        source = provenance_hash(run)

        def complete(shard: int) -> bool:
            keys = self.shard(shard)["key"].combine_chunks()
            return shard_is_complete(shard_path(run, shard), keys, source)

        with ThreadPoolExecutor(8) as pool:  # network file systems answer slowly
            whole = pool.map(complete, range(self.num_shards))
            return [shard for shard, is_whole in enumerate(whole) if not is_whole]

    @property
    def provenance(self) -> dict[str, Any]:
        """What decides which image is in which shard, and what the part ids mean."""
        digest = hashlib.sha256()
        for number, batch in enumerate(self.images.to_batches(max_chunksize=65536)):
            digest.update(b"\n" * bool(number) + "\n".join(batch["key"].to_pylist()).encode())
        return {
            "images": len(self.images),
            "image_list_sha256": digest.hexdigest(),
            "shard_size": self.shard_size,
            "vocabulary_hash": self.vocabulary.content_hash,
        }

    def predict_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The missing shards, as many of them as this process gets to draw."""
        assert self.trainer is not None
        strategy, run = self.trainer.strategy, Path(self.trainer.default_root_dir)
        # One process looks and tells the others: a shard may appear in between.
        missing: list[int] = []
        if strategy.is_global_zero:
            missing = self.missing_shards(run)
            damaged = [shard for shard in missing if shard_path(run, shard).exists()]
            if damaged:
                text = f"{run / 'labels'}: {len(damaged)} shards are damaged or not of this run and"
                warnings.warn(f"{text} are made again, the first is {damaged[0]:05d}", stacklevel=2)
            if not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
                ShardClaims.clear(run / "labels")
        self.missing, name = strategy.broadcast((missing, uuid4().hex[:8]))
        shards: Iterable[int]
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.claims = None  # a dry run leaves no files
            shards = self.missing[self.trainer.global_rank :: self.trainer.world_size]
        else:
            self.claims = ShardClaims(run / "labels", name)
            shards = self.claims.draw(self.missing)
        return DataLoader(
            ShardBatches(self.split),
            batch_size=None,
            sampler=DrawnBatches(self, shards),
            num_workers=self.num_workers,
            worker_init_fn=_leave_stopping_to_the_parent,
        )


def _leave_stopping_to_the_parent(worker: int) -> None:
    """A signal to the whole process group must not end the workers of a process that tidies up."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
