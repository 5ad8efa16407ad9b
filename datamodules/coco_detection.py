"""Data of the downstream detector: images with boxes in the format of COCO."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2.functional import horizontal_flip, resize

from datamodules.detection.annotated_images import read_annotated
from datamodules.detection.coco_boxes import CocoBoxes, category_names
from datamodules.detection.detection_loaders import DetectionLoaders
from datamodules.files.errors import UserError


class CocoDataset(Dataset[dict[str, Any]]):
    """Images with boxes.

    Args:
        coco: folder of the data set.
        annotations: the images and their boxes.
        indices: images to hand out, positions in `annotations`.
        flip: probability of a horizontal flip.
        size: shorter and greatest longer side that images are resized to, pixels, or None.
        seed: seed of the flips.
    """

    def __init__(
        self,
        coco: Path,
        annotations: CocoBoxes,
        indices: np.ndarray,
        flip: float = 0.0,
        size: tuple[int, int] | None = None,
        seed: int = 0,
    ) -> None:
        self.coco = coco
        self.annotations = annotations
        self.indices = indices
        self.flip = flip
        self.size = size
        self.seed = seed

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Any]:
        """One sample; the same (epoch, index) gives the same one in any process.

        Returns:
            `image (3, H, W)` uint8; `target` to train on, `boxes (N, 4)` as x1, y1, x2, y2 in
            pixels and `labels (N,)`; `truth` to be measured against, which has the crowds too and
            says so in `iscrowd (M,)`; `key`, the file.

        Raises:
            UserError: if the image cannot be decoded or has another size than annotated.
        """
        epoch, position = item
        index, notes = self.indices[position], self.annotations
        height, width = notes.sizes[index].tolist()
        image = read_annotated(self.coco / notes.files[index], height, width)
        boxes = torch.from_numpy(notes.boxes[notes.ends[index] : notes.ends[index + 1]]).clone()
        if self.size is not None:
            factor = min(self.size[0] / min(height, width), self.size[1] / max(height, width))
            wanted = [round(height * factor), round(width * factor)]
            image = resize(image, wanted, antialias=True)
            boxes *= torch.tensor([wanted[1] / width, wanted[0] / height]).repeat(2)
            height, width = wanted
        if np.random.default_rng((self.seed, epoch, position)).random() < self.flip:
            image = horizontal_flip(image)
            boxes = torch.stack(
                [width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1
            )
        labels = torch.from_numpy(notes.labels[notes.ends[index] : notes.ends[index + 1]])
        crowd = torch.from_numpy(notes.crowd[notes.ends[index] : notes.ends[index + 1]])
        single = crowd == 0
        return {
            "image": image,
            "target": {"boxes": boxes[single], "labels": labels[single]},
            "truth": {"boxes": boxes, "labels": labels, "iscrowd": crowd},
            "key": notes.files[index],
        }


class CocoDetectionDataModule(DetectionLoaders):
    """Training and validation images of the downstream detector.

    Args:
        coco: folder with `annotations/instances_<split>.json`, or the file itself, and the images
            in `<split>/`.
        train: name of the split to train on.
        val: name of the split to measure on.
        batch_size: images of one process and step.
        val_batch_size: the same for validation and test.
        num_workers: worker processes of each loader.
        seed: seed of order and flips.
        flip: probability of a horizontal flip.
        size: shorter and greatest longer side that images are resized to as they are read, in
            pixels: perturbations are then of the resized pixels. None leaves that to the network.
        skip_empty: leave images without boxes out of the training.

    Attributes:
        num_classes: number of categories and one, for the background, there from the start.

    Raises:
        MissingInputError: if annotations or images are missing.
        UserError: if they are damaged.
    """

    train_set: CocoDataset | None
    val_set: CocoDataset | None

    def __init__(
        self,
        coco: Path,
        train: str = "train2017",
        val: str = "val2017",
        batch_size: int = 2,
        val_batch_size: int = 2,
        num_workers: int = 0,
        seed: int = 0,
        flip: float = 0.5,
        size: tuple[int, int] | None = None,
        skip_empty: bool = True,
    ) -> None:
        super().__init__(batch_size, val_batch_size, num_workers, seed, _lists)
        self.coco = coco
        self.splits = {"train": train, "val": val}
        self.flip = flip
        self.size = size
        self.skip_empty = skip_empty
        self.categories = category_names(coco, val)
        self.num_classes = len(self.categories) + 1

    def setup(self, stage: str) -> None:
        """Reads the annotations once; called by the trainer."""
        if stage == "fit" and self.train_set is None:
            notes = CocoBoxes.read(self.coco, self.splits["train"], self.categories)
            shown = np.add.reduceat(np.append(notes.crowd == 0, False), notes.ends[:-1])
            kept = (np.diff(notes.ends) > 0) & (shown > 0) if self.skip_empty else shown >= 0
            if not kept.any():
                raise UserError(f"{self.coco}/{self.splits['train']} has no image with a box")
            self.train_set = CocoDataset(
                self.coco, notes, np.flatnonzero(kept), self.flip, self.size, self.seed
            )
        if self.val_set is None:
            notes = CocoBoxes.read(self.coco, self.splits["val"], self.categories)
            self.val_set = CocoDataset(
                self.coco, notes, np.arange(len(notes.files)), size=self.size
            )

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The same as for validation."""
        return self.val_dataloader()


def _lists(samples: Sequence[dict[str, Any]]) -> dict[str, list[Tensor | dict[str, Tensor] | str]]:
    return {name: [sample[name] for sample in samples] for name in samples[0]}
