"""Data of stage 1: images with human part masks."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations, read_split, split_annotations
from datamodules.detection.annotated_images import read_annotated
from datamodules.detection.detection_loaders import DetectionLoaders
from datamodules.files.errors import MissingInputError, UserError
from datamodules.images.sampling import repeat_factors
from datamodules.images.transforms import DetectionAugmentation, boxes_of
from datamodules.masks.part_labels import ImageParts, decode_masks

MIN_AREA = 4  # pixels that a part must keep after the augmentation


class DetectionDataset(Dataset[dict[str, Any]]):
    """Images with the masks, boxes and part ids of their parts.

    Args:
        images: split folder, `imagenet/train` or `imagenet/val`.
        annotations: the images and their parts.
        augmentation: applied when given.
        seed: seed of the augmentation.
    """

    def __init__(
        self,
        images: Path,
        annotations: Sequence[ImageParts],
        augmentation: DetectionAugmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.images = images
        self.annotations = annotations
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Any]:
        """One sample; the same (epoch, index) gives the same one in any process.

        Args:
            item: epoch and index; `i + c * len(self)` is the copy c of image i, which has an
                augmentation of its own.

        Returns:
            `image (3, H, W)` uint8; `target` with `boxes (N, 4)` x1, y1, x2, y2 in pixels,
            `labels (N,)` part ids, `masks (N, H, W)` uint8; `label`; `key`.

        Raises:
            UserError: if the image cannot be decoded or has another size than annotated.
        """
        epoch, index = item
        parts = self.annotations[index % len(self)]
        pixels = read_annotated(self.images / parts.key, parts.height, parts.width)
        image = tv_tensors.Image(pixels)
        masks = tv_tensors.Mask(torch.from_numpy(decode_masks(parts)))
        smallest = 1
        if self.augmentation is not None:
            image, masks = self.augmentation(image, masks, (self.seed, epoch, index))
            smallest = MIN_AREA
        labels = torch.tensor([instance.part for instance in parts.instances], dtype=torch.int64)
        return {
            "image": image.as_subclass(Tensor),
            "target": _target(masks.as_subclass(Tensor), labels, smallest),
            "label": parts.label,
            "key": parts.key,
        }


class PartDetectionDataModule(DetectionLoaders):
    """Training and validation images of the part segmenter.

    With `pinpp_val` all of `pinpp` is trained on and AP is measured on those images; without
    it a seeded tenth of every category is held out (PartImageNet++ §3.2, table 5), or what
    `split` says.

    Args:
        imagenet: folder with `train/` and `val/`.
        pinpp: folder with `json/` and, optionally, `including/`: annotations of train images.
        pinpp_val: folder of the same layout with annotations of val images.
        batch_size: images of one process and step.
        val_batch_size: the same for validation.
        num_workers: worker processes of each loader.
        seed: seed of the split, the order and the augmentation.
        flip: probability of a horizontal flip.
        scale: range of the scale jitter.
        photometric: probability of a colour change.
        canvas: side of the square of the large-scale jitter in pixels, see
            `DetectionAugmentation`; None keeps the size of every image.
        repeat_threshold: images of parts that are on a smaller fraction of the images are shown
            more often (`repeat_factors`; LVIS uses 0.001); 0 shows every image once an epoch.
        split: JSON file `{"train": [keys], "val": [keys]}` of a split of `pinpp`.
        aspect_ratio_grouping: batches of either wide or tall images, which are padded less.

    Attributes:
        vocabulary: object and part categories, there from the start.

    Raises:
        MissingInputError: if a folder, the split file or a listed image is missing.
        UserError: if annotations cannot be read or none are left to train on, or both
            `pinpp_val` and `split` are given.
    """

    train_set: DetectionDataset | None
    val_set: DetectionDataset | None

    def __init__(
        self,
        imagenet: Path,
        pinpp: Path,
        pinpp_val: Path | None = None,
        batch_size: int = 8,
        val_batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        flip: float = 0.5,
        scale: tuple[float, float] = (0.75, 1.25),
        photometric: float = 0.5,
        canvas: int | None = None,
        repeat_threshold: float = 0.0,
        split: Path | None = None,
        aspect_ratio_grouping: bool = False,
    ) -> None:
        super().__init__(batch_size, val_batch_size, num_workers, seed, collate)
        if split is not None and pinpp_val is not None:
            raise UserError(
                f"split {split} says what to validate on, and so does pinpp_val {pinpp_val}: "
                "give one of them"
            )
        if split is not None and not split.is_file():
            raise MissingInputError(f"split file {split} does not exist")
        if not 0 <= repeat_threshold <= 1:
            raise UserError(f"repeat_threshold {repeat_threshold} is not in [0, 1]")
        self.imagenet = imagenet
        self.pinpp = pinpp
        self.pinpp_val = pinpp_val
        self.augmentation = DetectionAugmentation(flip, scale, photometric, canvas)
        self.repeat_threshold = repeat_threshold
        self.split = split
        self.aspect_ratio_grouping = aspect_ratio_grouping
        self.vocabulary = PartVocabulary.from_pinpp(pinpp, imagenet)

    @property
    def object_parts(self) -> Tensor:
        """Which parts occur on which object: bool `(num_objects, K + 1)`."""
        return self.vocabulary.object_parts

    @property
    def image_counts(self) -> Tensor:
        """Number of training images with each class, int64 `(K + 1,)`; 0 for the background."""
        counts = torch.zeros(self.object_parts.shape[1], dtype=torch.int64)
        for classes in self._classes():
            counts[list(classes)] += 1
        return counts

    @property
    def object_counts(self) -> Tensor:
        """Number of training images that show each object, or a part of it: `(num_objects,)`."""
        assert self.train_set is not None, "setup() comes first"
        shown = [parts.label for parts in self.train_set.annotations if parts.instances]
        return torch.tensor(shown).bincount(minlength=len(self.vocabulary.objects))

    @property
    def split_keys(self) -> dict[str, list[str]]:
        """Keys of the images that are trained (`train`) and validated (`val`) on."""
        sets = {"train": self.train_set, "val": self.val_set}
        return {
            name: [parts.key for parts in dataset.annotations]
            for name, dataset in sets.items()
            if dataset is not None
        }

    def setup(self, stage: str) -> None:
        """Reads the annotations once; called by the trainer."""
        if self.train_set is not None:
            return
        train = self.imagenet / "train"
        annotations = read_annotations(self.pinpp, self.vocabulary, train)
        val = train
        if self.split is not None:
            annotations, held_out = read_split(self.split, annotations)
        elif self.pinpp_val is None:
            held_out = split_annotations(annotations, "val", self.seed)
            annotations = split_annotations(annotations, "train", self.seed)
        else:
            val = self.imagenet / "val"
            held_out = read_annotations(self.pinpp_val, self.vocabulary, val)
        if not annotations or not held_out:
            raise UserError(
                f"{self.pinpp}: {len(annotations)} images to train on and {len(held_out)} to "
                "validate on; both need one at least"
            )
        self._name_unshown_parts(annotations)
        self.train_set = DetectionDataset(train, annotations, self.augmentation, self.seed)
        self.val_set = DetectionDataset(val, held_out)

    def _name_unshown_parts(self, annotations: Sequence[ImageParts]) -> None:
        """Warns of parts that no training image shows, and refuses images that show none."""
        shown = {instance.part for parts in annotations for instance in parts.instances}
        names = [n for i, n in enumerate(self.vocabulary.parts, start=1) if i not in shown]
        if not shown:
            raise UserError(f"{self.pinpp}: no image to train on shows a part: add masks")
        if names:
            first = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            warnings.warn(
                f"{self.pinpp}: {len(names)} of {self.vocabulary.num_parts} parts have no mask "
                f"among the images to train on, so they cannot be learned: {first}",
                stacklevel=2,
            )

    def repeats(self) -> np.ndarray | None:
        """How often an epoch shows each training image, None for once."""
        if not self.repeat_threshold:
            return None
        return repeat_factors(self._classes(), self.repeat_threshold)

    def groups(self) -> np.ndarray | None:
        """1 for a training image that is wider than tall, 0 for another; None for one group."""
        if not self.aspect_ratio_grouping:
            return None
        assert self.train_set is not None, "setup() comes first"
        return np.array([parts.width > parts.height for parts in self.train_set.annotations], int)

    def _classes(self) -> list[set[int]]:
        """The parts on each training image."""
        assert self.train_set is not None, "setup() comes first"
        return [{i.part for i in parts.instances} for parts in self.train_set.annotations]


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Batch of samples: images, targets and keys as lists, `label (B,)` int64."""
    batch = {name: [sample[name] for sample in samples] for name in ("image", "target", "key")}
    return batch | {"label": torch.tensor([sample["label"] for sample in samples])}


def _target(masks: Tensor, labels: Tensor, smallest: int) -> dict[str, Tensor]:
    """Boxes, labels and masks of the parts that cover at least `smallest` pixels."""
    keep = masks.flatten(1).sum(dim=1, dtype=torch.int64) >= smallest
    masks = masks[keep].contiguous()
    return {"boxes": boxes_of(masks), "labels": labels[keep], "masks": masks}
