"""Images of the robustness evaluation: balanced subsets cut into fixed units of work."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import InterpolationMode, functional

from datamodules.imagenet_folder import list_images, read_image
from datamodules.part_vocabulary import PartVocabulary

RECORD_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("label", pa.int32()),
        ("clean_prediction", pa.int32()),
        ("adversarial_prediction", pa.int32()),
        ("robust", pa.bool_()),
        ("linf", pa.float32()),
        ("l2", pa.float32()),
    ]
)


@dataclass(frozen=True)
class AttackUnit:
    """A unit of work: one threat on one chunk of the image list.

    Attributes:
        threat: name of the threat model.
        chunk: number of the chunk.
        images: its images as pairs of key and label.
        start: position of the first image in the list.
        seed: seed of the attack, a function of (seed, threat, chunk) alone.
    """

    threat: str
    chunk: int
    images: tuple[tuple[str, int], ...]
    start: int
    seed: int

    def record(self, root: Path) -> Path:
        """Where the outcomes of the unit lie below a run folder."""
        return root / "records" / self.threat / f"{self.chunk:05d}.parquet"

    def is_done(self, root: Path) -> bool:
        """Whether there is a readable record of exactly these images."""
        try:
            table = pq.read_table(self.record(root))
        except (OSError, pa.ArrowInvalid):
            return False
        keys = [key for key, _ in self.images]
        return table.schema.equals(RECORD_SCHEMA) and table["key"].to_pylist() == keys


def balanced_order(images: Sequence[tuple[str, int]], seed: int) -> list[tuple[str, int]]:
    """Orders images so that the first n are balanced over classes, for every n.

    Classes take turns in a seeded order, and within a class images stand in the order of a
    seeded hash of their keys. Classes that run out are left out of the later turns.

    Args:
        images: pairs of key and label.
        seed: seed of both orders.
    """

    def place(name: str) -> bytes:
        return hashlib.sha256(f"{seed}/{name}".encode()).digest()

    by_label: dict[int, list[str]] = {}
    for key, label in images:
        by_label.setdefault(label, []).append(key)
    queue = sorted(
        (turn, place(f"class {label}"), key, label)
        for label, keys in by_label.items()
        for turn, key in enumerate(sorted(keys, key=place))
    )
    return [(key, label) for _, _, key, label in queue]


def to_pixels(image: Image.Image, resize: int, crop: int) -> Tensor:
    """Resizes the shorter side (bicubic) and takes the centre: uint8 `(3, crop, crop)`."""
    resized = functional.resize(image, [resize], interpolation=InterpolationMode.BICUBIC)
    cropped = functional.center_crop(resized, [crop, crop])
    return torch.from_numpy(np.array(cropped)).permute(2, 0, 1).contiguous()


class UnitDataset(Dataset[dict[str, Any]]):
    """Units of work as batches: `image (B, 3, H, W) uint8, label (B,), position (B,), key`.

    Besides these a batch says its `threat`, `chunk` and `attack_seed`.

    Args:
        units: the units.
        split: folder that the keys are relative to.
        resize: length of the shorter side after resizing, pixels.
        crop: side of the centre crop, pixels.
    """

    def __init__(self, units: Sequence[AttackUnit], split: Path, resize: int, crop: int) -> None:
        self.units = units
        self.split = split
        self.resize = resize
        self.crop = crop

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, index: int) -> dict[str, Any]:
        unit = self.units[index]
        files = [self.split / key for key, _ in unit.images]
        return {
            "image": torch.stack(
                [to_pixels(read_image(file), self.resize, self.crop) for file in files]
            ),
            "label": torch.tensor([label for _, label in unit.images]),
            "position": torch.arange(unit.start, unit.start + len(unit.images)),
            "key": [key for key, _ in unit.images],
            "threat": unit.threat,
            "chunk": unit.chunk,
            "attack_seed": unit.seed,
        }


class RobustnessSets(LightningDataModule):
    """Class-balanced subsets of the val images, one prefix of the same list for each threat.

    A batch is a chunk of `chunk_size` images. Units whose record is in the run folder are left
    out, the others go round the processes, so neither the number of processes nor where a run
    was cut has an influence on what a unit is.

    Args:
        imagenet: folder with `train/` and `val/`.
        pinpp: folder with the part annotations, which define the vocabulary.
        images: number of images for each threat, at most all; done in this order, so put cheap
            threats first.
        chunk_size: images in one attack call.
        image_size: side of the centre crop, pixels.
        resize: length of the shorter side before cropping, pixels.
        num_workers: processes that read images.
        seed: seed of the subset and of the attacks.

    Raises:
        FileNotFoundError: if a folder is missing.
        ValueError: if a number is out of range.
    """

    def __init__(
        self,
        imagenet: Path,
        pinpp: Path,
        images: dict[str, int],
        chunk_size: int = 8,
        image_size: int = 224,
        resize: int = 256,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        wrong = [f"{name}: {number}" for name, number in images.items() if number < 1]
        if wrong or not images:
            raise ValueError(f"images must be 1 or more for at least one threat, not {wrong}")
        if chunk_size < 1 or not 0 < image_size <= resize:
            raise ValueError(
                f"chunk_size={chunk_size} must be positive and image_size={image_size} in "
                f"[1, resize={resize}]"
            )
        # with few units left a process may have none
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.split = Path(imagenet) / "val"
        self.images = images
        self.chunk_size = chunk_size
        self.image_size = image_size
        self.resize = resize
        self.num_workers = num_workers
        self.seed = seed
        self.vocabulary = PartVocabulary.from_pinpp(Path(pinpp), Path(imagenet))
        self.image_list = balanced_order(list_images(self.split), seed)
        self.units = [unit for name in images for unit in self._units_of(name)]

    @property
    def object_parts(self) -> Tensor:
        """Which parts can occur on which object: bool `(num_objects, K + 1)`."""
        return self.vocabulary.object_parts

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides what a unit is, as JSON-able values."""
        listing = "\n".join(f"{key} {label}" for key, label in self.image_list)
        return {
            "image_list": hashlib.sha256(listing.encode()).hexdigest(),
            "chunk_size": self.chunk_size,
            "image_size": self.image_size,
            "resize": self.resize,
            "seed": self.seed,
        }

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The units of this process that have no record yet."""
        assert self.trainer is not None
        # every process gets here before any has begun, so all see the same records
        root = Path(self.trainer.default_root_dir)
        left = [unit for unit in self.units if not unit.is_done(root)]
        mine = left[self.trainer.global_rank :: self.trainer.world_size]
        dataset = UnitDataset(mine, self.split, self.resize, self.image_size)
        return DataLoader(dataset, batch_size=None, num_workers=self.num_workers)

    def _units_of(self, threat: str) -> list[AttackUnit]:
        chosen = self.image_list[: self.images[threat]]
        return [
            AttackUnit(
                threat,
                start // self.chunk_size,
                tuple(chosen[start : start + self.chunk_size]),
                start,
                self._seed_of(threat, start // self.chunk_size),
            )
            for start in range(0, len(chosen), self.chunk_size)
        ]

    def _seed_of(self, threat: str, chunk: int) -> int:
        digest = hashlib.sha256(f"{self.seed}/{threat}/{chunk}".encode()).digest()
        return int.from_bytes(digest[:4]) >> 1
