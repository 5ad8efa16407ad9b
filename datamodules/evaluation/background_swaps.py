"""Test of background bias: objects on backgrounds of other classes, by their part masks."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import annotations_hash, read_annotations
from datamodules.detection.annotated_images import open_annotated
from datamodules.evaluation.attack_batches import to_pixels
from datamodules.evaluation.evaluation_sets import (
    EvaluationSet,
    EvaluationSetting,
    EvaluationSource,
    MissingSet,
)
from datamodules.evaluation.ood_sets import FolderSet, folder_problem
from datamodules.images.image_lists import sizes_hash
from datamodules.masks.part_labels import ImageParts, decode_masks


@dataclass(frozen=True)
class _Donor:
    key: str
    label: int
    box: tuple[int, int, int, int]  # around all parts: left, top, right, bottom
    strip: tuple[int, int, int, int]  # the largest rectangle beside it, of full height or width


class BackgroundSwaps(EvaluationSource):
    """Objects cut out by the union of their part masks, on backgrounds of another class.

    The recipe is that of P1's test, which joins Only-FG and Only-BG-T images of two classes of
    ImageNet-9 (Xiao et al. 2021): of the background's image the box around its own object is
    filled with tiles of the largest strip beside the box, then it is scaled to cover the other
    image, whose object stays where it was at its size. Different from P1, foregrounds are unions
    of part masks, so what no part covers is lost with the background, the classes are the model's
    and not four super-categories, and every image is used once. `background/original` holds the
    same images unchanged, to compare with.

    Args:
        annotations: folder with `json/` for the images of `split`; None if there is none.
        split: the split that is annotated. PartImageNet++ annotates `train` alone: a model
            trained on it has seen these objects.
        least_background: images serve as background where the strip beside their object has at
            least this share of their pixels.
    """

    def __init__(
        self,
        annotations: Path | None = None,
        split: Literal["train", "val"] = "val",
        least_background: float = 0.1,
    ) -> None:
        self.annotations = annotations
        self.split = split
        self.least_background = least_background

    def sets(self, setting: EvaluationSetting) -> list[EvaluationSet]:
        """`background/original` and `background/swapped`.

        Raises:
            UserError: if an annotation cannot be read.
        """
        names = ("background/original", "background/swapped")
        what = f"the folder whose json/ annotates {self.split} images"
        problem = folder_problem(self.annotations, what).replace("`folder`", "`annotations`")
        if problem or self.annotations is None:
            return [MissingSet(name, "background", problem) for name in names]
        images = setting.val if self.split == "val" else setting.imagenet / self.split
        annotations = Path(self.annotations)
        vocabulary = PartVocabulary.from_pinpp(annotations, setting.imagenet, setting.objects)
        records = read_annotations(annotations, vocabulary, images)
        records = [record for record in records if record.instances]
        donors = [found for r in records if (found := _donor(r, self.least_background))]
        classes = {donor.label for donor in donors}
        items = [(r.key, r.label) for r in records if classes - {r.label}]
        if not items:
            reason = f"{self.annotations} has backgrounds of {len(classes)} classes, 2 are needed"
            return [MissingSet(name, "background", reason) for name in names]
        original = FolderSet(names[0], "background", images, items, setting)
        swapped = _SwappedSet(names[1], images, items, setting)
        swapped.prepare(records, donors, setting.seed)
        swapped.files = {
            "annotations": annotations_hash(annotations),
            # may be of a class that has no foreground
            "backgrounds": sizes_hash(images, swapped.settings["backgrounds"].values()),
        }
        return [original, swapped]


class _SwappedSet(FolderSet):
    """Foregrounds on other backgrounds."""

    def __init__(
        self,
        name: str,
        folder: Path,
        items: Sequence[tuple[str, int]],
        setting: EvaluationSetting,
    ) -> None:
        super().__init__(name, "background", folder, items, setting)
        self._records: dict[str, ImageParts] = {}
        self._donors: dict[str, _Donor] = {}

    def prepare(self, records: Sequence[ImageParts], donors: Sequence[_Donor], seed: int) -> None:
        """Draws a background for each image: a function of seed, key and the possible ones."""
        self._records = {record.key: record for record in records}
        others = {
            label: [donor for donor in donors if donor.label != label]
            for label in {label for _, label in self.items()}
        }
        for key, label in self.items():
            self._donors[key] = random.Random(f"{seed}/{key}").choice(others[label])
        pairs = {key: donor.key for key, donor in self._donors.items()}
        self.settings = {**self.settings, "backgrounds": pairs}

    def image(self, key: str) -> Tensor:
        """The object of `key` on the background drawn for it: uint8 `(3, H, W)`.

        Raises:
            UserError: if one of the two images cannot be decoded, or has another size than its
                annotation says.
        """
        foreground = self._pixels(key)
        mask = np.asarray(decode_masks(self._records[key]).max(0) > 0)
        donor = self._donors[key]
        empty = without_object(self._pixels(donor.key), donor.box, donor.strip)
        background = _cover(Image.fromarray(empty), *mask.shape)
        joined = np.where(mask[..., None], foreground, background)
        image = Image.fromarray(joined)
        return to_pixels(image, self.resize, self.image_size, self.interpolation)

    def _pixels(self, key: str) -> np.ndarray:
        """An image that is as large as its parts say: uint8 `(H, W, 3)`."""
        record = self._records[key]
        return np.array(open_annotated(self.folder / key, record.height, record.width))


def without_object(
    pixels: np.ndarray, box: tuple[int, int, int, int], strip: tuple[int, int, int, int]
) -> np.ndarray:
    """Fills the box around an object with tiles of a strip of background ("BG-T").

    Args:
        pixels: uint8 `(H, W, 3)`.
        box: left, top, right, bottom of the object, pixels, right and bottom exclusive.
        strip: the same of the background.

    Returns:
        uint8 `(H, W, 3)`, a copy.
    """
    left, top, right, bottom = strip
    tile = pixels[top:bottom, left:right]
    left, top, right, bottom = box
    times = (-(-(bottom - top) // tile.shape[0]), -(-(right - left) // tile.shape[1]), 1)
    filled = pixels.copy()
    filled[top:bottom, left:right] = np.tile(tile, times)[: bottom - top, : right - left]
    return filled


def _cover(image: Image.Image, height: int, width: int) -> np.ndarray:
    scale = max(height / image.height, width / image.width)
    size = [max(height, round(image.height * scale)), max(width, round(image.width * scale))]
    resized = functional.resize(image, size, interpolation=InterpolationMode.BICUBIC)
    return np.array(functional.center_crop(resized, [height, width]))


def _donor(record: ImageParts, least_background: float) -> _Donor | None:
    boxes = np.array([instance.box for instance in record.instances])
    left, top = np.floor(boxes[:, :2].min(0)).astype(int).clip(0).tolist()
    right, bottom = np.ceil(boxes[:, 2:].max(0)).astype(int).tolist()
    right, bottom = min(right, record.width), min(bottom, record.height)
    strips = [
        (0, 0, left, record.height),
        (right, 0, record.width, record.height),
        (0, 0, record.width, top),
        (0, bottom, record.width, record.height),
    ]
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in strips]
    if max(areas) < max(least_background * record.width * record.height, 1):
        return None
    box = (left, top, right, bottom)
    return _Donor(record.key, record.label, box, strips[int(np.argmax(areas))])
