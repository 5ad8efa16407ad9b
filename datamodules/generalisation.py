"""Images of the generalisation evaluation: many sets cut into fixed units of work."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.evaluation.attack_batches import Interpolation
from datamodules.evaluation.evaluation_sets import (
    EvaluationSet,
    EvaluationSetting,
    EvaluationSource,
)
from datamodules.files.errors import UserError
from datamodules.images.evaluation_folder import EvaluationFolder
from datamodules.images.image_lists import balanced_order, sizes_hash

RECORD_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("label", pa.int32()),
        ("prediction", pa.int32()),
        ("correct", pa.bool_()),
        ("confidence", pa.float32()),
    ]
)


@dataclass(frozen=True)
class EvaluationUnit:
    """A unit of work: one chunk of one set.

    Attributes:
        position: position of the set.
        name: name of the set.
        chunk: number of the chunk.
        images: its images as pairs of key and label.
    """

    position: int
    name: str
    chunk: int
    images: Sequence[tuple[str, int]]

    def record(self, root: Path) -> Path:
        """Where the outcomes of the unit lie below a run folder."""
        return root / "records" / self.name / f"{self.chunk:05d}.parquet"

    def is_done(self, root: Path) -> bool:
        """Whether there is a readable record of exactly these images."""
        try:
            table = pq.read_table(self.record(root))
        except (OSError, pa.ArrowInvalid):
            return False
        keys = [key for key, _ in self.images]
        return table.schema.equals(RECORD_SCHEMA) and table["key"].to_pylist() == keys


class _Units(Dataset[dict[str, Any]]):
    """Units as batches: `image (B, 3, H, W) uint8, label (B,), key`, and what grades them."""

    def __init__(self, units: Sequence[EvaluationUnit], sets: Sequence[EvaluationSet]) -> None:
        self.units = units
        self.sets = sets

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, index: int) -> dict[str, Any]:
        unit = self.units[index]
        chosen = self.sets[unit.position]
        return {
            "image": torch.stack([chosen.image(key) for key, _ in unit.images]),
            "label": torch.tensor([label for _, label in unit.images]),
            "key": [key for key, _ in unit.images],
            "set": unit.name,
            "chunk": unit.chunk,
            "groups": chosen.groups,
            "aggregate": chosen.aggregate,
        }


class GeneralisationDataModule(LightningDataModule):
    """Sets of images without an attack: corruptions, shifts, human stimuli, subsets, biases.

    A batch is a chunk of one set. Units whose record is in the run folder are left out, the
    others go round the processes, so neither the number of processes nor where a run was cut has
    an influence on what a unit is. Sets that cannot be measured stay in `sets` with their reason.

    Args:
        imagenet: folder with `train/` and `val/`, with `val/` alone, or of images; see
            `EvaluationFolder`.
        pinpp: folder with the part annotations, which define the vocabulary; None if the model
            has no parts.
        sources: sources of sets by any name; done in this order.
        batch_size: images in one chunk.
        num_workers: processes that read, or make, images.
        image_size: side of the square network input, pixels.
        resize: length of the shorter side before cropping, pixels.
        interpolation: of the resizing.
        seed: seed of all that is drawn.
        max_images: at most this many of each set, balanced over labels; None for all.
        list_file: take the val images from this list of `path label` lines; also the name of a
            published list, see `find_list`.

    Attributes:
        classes: names of the classes by label; None where only the labels of a list are known.
        least_classes: number of classes that the labels of the list need; 0 without one.

    Raises:
        MissingInputError: if a folder is missing.
        UserError: if a number is out of range, or two sets or two images have one name.
    """

    def __init__(
        self,
        imagenet: Path,
        pinpp: Path | None,
        sources: dict[str, EvaluationSource],
        batch_size: int = 64,
        num_workers: int = 0,
        image_size: int = 224,
        resize: int = 256,
        interpolation: Interpolation = "bicubic",
        seed: int = 0,
        max_images: int | None = None,
        list_file: Path | None = None,
    ) -> None:
        super().__init__()
        least = batch_size if max_images is None else min(batch_size, max_images)
        if least < 1 or not 0 < image_size <= resize:
            raise UserError(
                f"batch_size={batch_size} and max_images={max_images} must be positive and "
                f"image_size={image_size} in [1, resize={resize}]"
            )
        # with few units left a process may have none
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.max_images = max_images
        folder = EvaluationFolder.read(Path(imagenet), list_file and Path(list_file))
        self.classes = folder.classes
        self.least_classes = folder.least_classes
        self.vocabulary = (
            PartVocabulary(folder.objects, ())
            if pinpp is None
            else PartVocabulary.from_pinpp(Path(pinpp), Path(imagenet), folder.objects)
        )
        self.setting = EvaluationSetting(
            Path(imagenet),
            pinpp and Path(pinpp),
            self.vocabulary.objects,
            image_size,
            resize,
            seed,
            interpolation,
            folder.root,
            None if folder.listed is None else dict(folder.listed),
        )
        self.sets = [found for source in sources.values() for found in source.sets(self.setting)]
        names = [found.name for found in self.sets]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise UserError(f"two sets are called {repeated[0]}: give one of them another name")
        self.image_lists = {found.name: self._chosen(found) for found in self.sets}
        self._sizes: dict[tuple[Path, str], str] = {}
        self.units = [
            unit for position in range(len(self.sets)) for unit in self._units_of(position)
        ]

    @property
    def image_size(self) -> int:
        """Side of the square network input, pixels."""
        return self.setting.image_size

    @property
    def resize(self) -> int:
        """Length of the shorter side before cropping, pixels."""
        return self.setting.resize

    @property
    def interpolation(self) -> Interpolation:
        """Of the resizing."""
        return self.setting.interpolation

    @property
    def object_parts(self) -> Tensor | None:
        """Which parts can occur on which object: bool `(num_objects, K + 1)`.

        None where the number of classes is not known.
        """
        return None if self.classes is None else self.vocabulary.object_parts

    def settings_of(self, chosen: EvaluationSet) -> dict[str, Any]:
        """All that decides the records of a set, as JSON-able values.

        Raises:
            MissingInputError: if an image of the set does not exist.
        """
        listing = "\n".join(f"{key} {label}" for key, label in self.image_lists[chosen.name])
        image_list = hashlib.sha256(listing.encode()).hexdigest()
        groups = None if chosen.groups is None else chosen.groups.tolist()
        return {
            "image_list": image_list,
            "batch_size": self.batch_size,
            "image_size": self.setting.image_size,
            "resize": self.setting.resize,
            **({"interpolation": self.interpolation} if self.interpolation != "bicubic" else {}),
            "seed": self.setting.seed,
            "groups": hashlib.sha256(f"{groups} {chosen.aggregate}".encode()).hexdigest(),
            **chosen.settings,
            "files": {**chosen.files, **self._images_hash(chosen, image_list)},
        }

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The units of this process that have no record yet."""
        assert self.trainer is not None
        # every process gets here before any has begun, so all see the same records
        root = Path(self.trainer.default_root_dir)
        left = [unit for unit in self.units if not unit.is_done(root)]
        mine = left[self.trainer.global_rank :: self.trainer.world_size]
        workers = self.num_workers if mine else 0
        return DataLoader(_Units(mine, self.sets), batch_size=None, num_workers=workers)

    def _images_hash(self, chosen: EvaluationSet, image_list: str) -> dict[str, str]:
        if chosen.folder is None:
            return {}
        # the generated corruptions share their images: one look at each file is enough
        known = chosen.folder, image_list
        if known not in self._sizes:
            keys = (key for key, _ in self.image_lists[chosen.name])
            self._sizes[known] = sizes_hash(chosen.folder, keys)
        return {"images": self._sizes[known]}

    def _units_of(self, position: int) -> list[EvaluationUnit]:
        name, size = self.sets[position].name, self.batch_size
        images = self.image_lists[name]
        return [
            EvaluationUnit(position, name, start // size, images[start : start + size])
            for start in range(0, len(images), size)
        ]

    def _chosen(self, found: EvaluationSet) -> Sequence[tuple[str, int]]:
        if found.missing:
            return []
        images = found.items()
        if len({key for key, _ in images}) < len(images):
            raise UserError(f"set {found.name} has two images of one key")
        if self.max_images is None or len(images) <= self.max_images:
            return images
        return balanced_order(images, self.setting.seed)[: self.max_images]
