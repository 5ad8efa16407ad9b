"""Units of work of the attack evaluation as batches: pixels, labels, part maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import InterpolationMode, functional

from datamodules.detection.annotated_images import open_annotated
from datamodules.evaluation.attack_units import AttackUnit, StoppingRule
from datamodules.images.image_files import read_image
from datamodules.masks.part_labels import ImageParts
from datamodules.masks.part_masks import composite

Interpolation = Literal["bicubic", "bilinear"]

UNKNOWN = -1  # part id of images without annotations


def to_pixels(
    image: Image.Image, resize: int, crop: int, interpolation: Interpolation = "bicubic"
) -> Tensor:
    """Resizes the shorter side and takes the centre: uint8 `(3, crop, crop)`."""
    mode = InterpolationMode(interpolation)
    resized = functional.resize(image, [resize], interpolation=mode)
    cropped = functional.center_crop(resized, [crop, crop])
    return torch.from_numpy(np.array(cropped)).permute(2, 0, 1).contiguous()


def to_part_map(labels: np.ndarray, resize: int, crop: int) -> Tensor:
    """Takes the same crop of a label map `(H, W)`, nearest pixels: int32 `(crop, crop)`."""
    whole = torch.from_numpy(labels)[None]
    resized = functional.resize(whole, [resize], interpolation=InterpolationMode.NEAREST_EXACT)
    return functional.center_crop(resized, [crop, crop])[0].contiguous()


class UnitDataset(Dataset[dict[str, Any]]):
    """Units of work as batches: `image (B, 3, H, W) uint8, label (B,), position (B,), key`.

    Besides these a batch says its `threat`, `chunk` and `attack_seed`, and with `keep` where a long
    attack keeps what it found, `kept`; with annotations it has
    `part_map (B, H, W) int32`, -1 where an image has none. A unit that the stopping rule finds
    needless is a batch without images.

    Args:
        units: the units.
        split: folder that the keys are relative to.
        resize: length of the shorter side after resizing, pixels.
        crop: side of the centre crop, pixels.
        annotations: part annotations by key.
        inclusions: pairs (part id, id of the whole that includes it).
        stopping: rule and the run folder whose records it looks at.
        interpolation: of the resizing of images.
        keep: whether what was found in a unit that is cut is kept in the run folder.
    """

    def __init__(
        self,
        units: Sequence[AttackUnit],
        split: Path,
        resize: int,
        crop: int,
        annotations: Mapping[str, ImageParts] | None = None,
        inclusions: Sequence[tuple[int, int]] = (),
        stopping: tuple[StoppingRule, Path] | None = None,
        interpolation: Interpolation = "bicubic",
        keep: bool = False,
    ) -> None:
        self.units = units
        self.split = split
        self.resize = resize
        self.crop = crop
        self.annotations = annotations
        self.inclusions = inclusions
        self.stopping = stopping
        self.interpolation: Interpolation = interpolation
        self.keep = keep

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, index: int) -> dict[str, Any]:
        unit = self.units[index]
        about: dict[str, Any] = {
            "threat": unit.threat,
            "chunk": unit.chunk,
            "attack_seed": unit.seed,
        }
        if self.stopping is not None:
            rule, root = self.stopping
            if rule.may_stop and unit not in rule.needed(root):
                return about
            if self.keep:
                about["kept"] = str(unit.kept(root))
        batch: dict[str, Any] = {
            "image": torch.stack([self._pixels(key) for key, _ in unit.images]),
            "label": torch.tensor([label for _, label in unit.images]),
            "position": torch.arange(unit.start, unit.start + len(unit.images)),
            "key": [key for key, _ in unit.images],
            **about,
        }
        if self.annotations and any(key in self.annotations for key in batch["key"]):
            batch["part_map"] = torch.stack([self._part_map(key) for key in batch["key"]])
        return batch

    def _pixels(self, key: str) -> Tensor:
        file, known = self.split / key, (self.annotations or {}).get(key)
        image = open_annotated(file, known.height, known.width) if known else read_image(file)
        return to_pixels(image, self.resize, self.crop, self.interpolation)

    def _part_map(self, key: str) -> Tensor:
        if self.annotations is None or key not in self.annotations:
            return torch.full((self.crop, self.crop), UNKNOWN, dtype=torch.int32)
        labels = composite(self.annotations[key], self.inclusions)
        return to_part_map(labels, self.resize, self.crop)
