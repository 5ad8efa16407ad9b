"""Images of the robustness evaluation: balanced subsets cut into fixed units of work."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import annotations_hash, read_annotations
from datamodules.detection.annotated_images import require_size
from datamodules.evaluation.attack_batches import Interpolation, UnitDataset, to_pixels
from datamodules.evaluation.attack_units import AttackUnit, StoppingRule, outcomes_of_run
from datamodules.evaluation.class_subsets import find_subset
from datamodules.evaluation.evaluation_sets import group_tensor
from datamodules.evaluation.paired_stopping import PairedRule
from datamodules.files.errors import UserError
from datamodules.images.evaluation_folder import EvaluationFolder
from datamodules.images.image_files import read_image
from datamodules.images.image_lists import balanced_order, format_image_list, sizes_hash
from datamodules.masks.part_labels import ImageParts

PER_CLASS = 10  # images of each class, PartImageNet++ §5.1


class RobustnessDataModule(LightningDataModule):
    """Class-balanced subsets of the val images, one prefix of the same list for each threat.

    A batch is a chunk of `chunk_size` images. Units whose record is in the run folder are left
    out, the others go round the processes, so neither the number of processes nor where a run
    was cut has an influence on what a unit is.

    Args:
        imagenet: folder with `train/` and `val/`, with `val/` alone, or of images; see
            `EvaluationFolder`.
        pinpp: folder with the part annotations, which define the vocabulary; None if the
            evaluation has nothing to do with parts.
        images: number of images for each threat, at most all, None for 10 a class or the whole
            `list_file`; done in this order, so put cheap threats first.
        chunk_size: images in one attack call.
        image_size: side of the centre crop, pixels.
        resize: length of the shorter side before cropping, pixels.
        interpolation: of the resizing.
        num_workers: processes that read images.
        seed: seed of the subset and of the attacks.
        list_file: take the images from this list of `path label` lines instead of all of `val/`;
            also the name of a published list, see `find_list`.
        stop_width: end a threat once the 95 % interval of its accuracy is no wider than this, in
            (0, 1]; None never. Intervals that end a threat are a little too tight.
        stop_against: run folder of another model's evaluation on the same images: end a threat once
            it is decided which model is better under it, see `confidence_sequence`.
        stop_level: share of such comparisons that may be decided wrongly.
        part_annotations: folder with `json/` of val images, to measure part maps under attack.
        subset: keep to the images of this subset of the classes, whose groups are the labels:
            `pin11`, or a name in `subsets`.
        subsets: JSON file of subsets, see `ClassSubsets`.

    Attributes:
        classes: names of the classes by label; None where only the labels of a list are known.
        least_classes: number of classes that the labels of the list need; 0 without one.
        answers: names of the labels: the object categories, or the groups of the subset.
        groups: group of each class, int64 `(num_classes,)`, -1 outside the subset; None without.

    Raises:
        MissingInputError: if a folder or file is missing.
        UserError: if a number is out of range, the list or the subset is wrong, or an image has
            another size than its annotation says.
    """

    def __init__(
        self,
        imagenet: Path,
        pinpp: Path | None,
        images: dict[str, int | None],
        chunk_size: int = 8,
        image_size: int = 224,
        resize: int = 256,
        interpolation: Interpolation = "bicubic",
        num_workers: int = 0,
        seed: int = 0,
        list_file: Path | None = None,
        stop_width: float | None = None,
        stop_against: Path | None = None,
        stop_level: float = 0.05,
        part_annotations: Path | None = None,
        subset: str | None = None,
        subsets: Path | None = None,
    ) -> None:
        super().__init__()
        wrong = [
            f"{n}: {number}" for n, number in images.items() if number is not None and number < 1
        ]
        if wrong or not images:
            raise UserError(f"images must be 1 or more for at least one threat, not {wrong}")
        if chunk_size < 1 or not 0 < image_size <= resize:
            raise UserError(
                f"chunk_size={chunk_size} must be positive and image_size={image_size} in "
                f"[1, resize={resize}]"
            )
        if stop_width is not None and not 0 < stop_width <= 1:
            raise UserError(f"stop_width={stop_width} must be in (0, 1], such as 0.02 for +-1 %")
        if not 0 < stop_level < 0.5:
            raise UserError(f"stop_level={stop_level} must be in (0, 0.5), such as 0.05")
        if part_annotations is not None and pinpp is None:
            raise UserError(
                "part_annotations (PINPP_VAL=) need pinpp (PINPP=), the folder that defines the "
                "vocabulary"
            )
        if subsets is not None and subset is None:
            raise UserError(f"subsets={subsets} needs subset, the name of one of them")
        # with few units left a process may have none
        self.allow_zero_length_dataloader_with_multiple_devices = True
        folder = EvaluationFolder.read(Path(imagenet), list_file and Path(list_file))
        self.split = folder.root
        self.classes = folder.classes
        self.least_classes = folder.least_classes
        self.chunk_size = chunk_size
        self.image_size = image_size
        self.resize = resize
        self.interpolation: Interpolation = interpolation
        self.num_workers = num_workers
        self.seed = seed
        self.vocabulary = (
            PartVocabulary(folder.objects, ())
            if pinpp is None
            else PartVocabulary.from_pinpp(Path(pinpp), Path(imagenet), folder.objects)
        )
        listed = list(folder.images())
        self.answers = self.vocabulary.objects
        self.groups: Tensor | None = None
        if subset is not None:
            numbers, self.answers = find_subset(subset, subsets, self.vocabulary.objects)
            self.groups = group_tensor(numbers, self.vocabulary.objects)
            listed = [(key, label) for key, label in listed if self.groups[label] >= 0]
            if not listed:
                raise UserError(f"no image of {list_file or self.split} is in subset {subset}")
        self._class_subset = subset
        self._classes = dict(listed)
        self.image_list = [
            (key, label if self.groups is None else int(self.groups[label]))
            for key, label in balanced_order(listed, seed)
        ]
        classes = len({label for _, label in listed})
        default = PER_CLASS * classes if list_file is None else len(listed)
        self.images = {name: number or default for name, number in images.items()}
        self.subset = self.image_list[: max(self.images.values())]
        self.annotations = self._read_parts(part_annotations and Path(part_annotations))
        self.units = [unit for name in self.images for unit in self._units_of(name)]
        self.stop_against = None if stop_against is None else Path(stop_against)
        paired = None
        if self.stop_against is not None:
            paired = PairedRule(outcomes_of_run(self.stop_against, self.units), stop_level)
        self.stopping = StoppingRule(self.units, stop_width, paired)

    @property
    def object_parts(self) -> Tensor | None:
        """Which parts can occur on which object: bool `(num_objects, K + 1)`.

        None where the number of classes is not known.
        """
        return None if self.classes is None else self.vocabulary.object_parts

    @cached_property
    def _images_hash(self) -> str:
        return sizes_hash(self.split, (key for key, _ in self.image_list))

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides what a unit and its records are, as JSON-able values.

        Raises:
            MissingInputError: if an image does not exist.
        """
        listing = "\n".join(f"{key} {label}" for key, label in self.image_list)
        subset = None
        if self.groups is not None:
            digest = hashlib.sha256(f"{self.groups.tolist()}".encode()).hexdigest()
            subset = f"{self._class_subset} sha256:{digest}"
        return {
            "image_list": hashlib.sha256(listing.encode()).hexdigest(),
            "chunk_size": self.chunk_size,
            "image_size": self.image_size,
            "resize": self.resize,
            **({"interpolation": self.interpolation} if self.interpolation != "bicubic" else {}),
            "seed": self.seed,
            "part_annotations": self.annotations_hash,
            "subset": subset,
            "files": {"images": self._images_hash},
        }

    def subset_lines(self) -> str:
        """The images that are evaluated, in order, as a `list_file`."""
        return format_image_list([(key, self._classes[key]) for key, _ in self.subset])

    def first_images(self, number: int = 4) -> Tensor:
        """The first images of the list as the attacks get them: uint8 `(number or fewer, 3, S, S)`.

        Raises:
            UserError: if one of them cannot be read.
        """
        files = [self.split / key for key, _ in self.image_list[:number]]
        shape = self.resize, self.image_size, self.interpolation
        return torch.stack([to_pixels(read_image(file), *shape) for file in files])

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The units of this process that have no record yet."""
        assert self.trainer is not None
        # every process gets here before any has begun, so all see the same records
        root = Path(self.trainer.default_root_dir)
        left = [unit for unit in self.stopping.needed(root) if not unit.is_done(root)]
        dataset = UnitDataset(
            left[self.trainer.global_rank :: self.trainer.world_size],
            self.split,
            self.resize,
            self.image_size,
            self.annotations,
            self.vocabulary.inclusions,
            (self.stopping, root),
            self.interpolation,
            keep=not self.trainer.fast_dev_run,  # type: ignore[attr-defined]
        )
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

    def _read_parts(self, folder: Path | None) -> dict[str, ImageParts]:
        self.annotations_hash: str | None = None
        if folder is None:
            return {}
        wanted = {key for key, _ in self.subset}
        self.annotations_hash = annotations_hash(folder)
        found = {
            record.key: record
            for record in read_annotations(folder, self.vocabulary)
            if record.key in wanted
        }
        if not found:
            raise UserError(f"{folder} annotates none of the {len(wanted)} images of the subset")
        for key, record in found.items():  # headers take seconds, attacks that end here hours
            require_size(self.split / key, record.height, record.width)
        return found
