"""Random crops of training images with the part labels of their supervised cells."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.files.errors import UserError
from datamodules.images.device_augmentation import erased_box
from datamodules.images.image_crops import Box, Resampling, read_crop
from datamodules.images.image_files import read_header
from datamodules.images.orientation import turned_reason
from datamodules.images.resized_store import resized_size
from datamodules.labels.composite_store import CompositeStore


class PartSupervisedImages(Dataset[dict[str, Any]]):
    """Random crops with the part labels of their cells, a function of (seed, epoch, index).

    Labels are taken where nearest-neighbour resizing of the crop's label map to `image_size`
    and then to the supervised cells would take them, straight from the run lengths: at the
    first pixel of every `label_stride`-th column and row. Images are uint8; the factors of
    `device_augmentation` come with them.

    Args:
        folder: `imagenet/train`, or the copies of its images in a smaller size.
        store: composite labels.
        image_size: side of the crops in pixels.
        label_stride: pixels per supervised cell.
        min_scale: least share of the image's area that a crop covers.
        color_jitter: largest relative change of brightness, contrast and saturation.
        seed: seed of the crops.
        rows: rows of the store to take; None for all.
        weights: weight of each of the store's part labels, `(N,)`; None for 1.
        random_erasing: probability of erasing a rectangle.
        resampling: which library resizes, see `read_crop`.
        resized_side: shorter side of the copies that `folder` holds; None for the originals.
            Crops are drawn in pixels of the original either way, so labels are the same.
        sides: side of the crops of the first epochs, in place of `image_size`.
    """

    def __init__(
        self,
        folder: Path,
        store: CompositeStore,
        image_size: int,
        label_stride: int,
        min_scale: float,
        color_jitter: float,
        seed: int,
        *,
        rows: Sequence[int] | None = None,
        weights: np.ndarray | None = None,
        random_erasing: float = 0.0,
        resampling: Resampling = "torch",
        resized_side: int | None = None,
        sides: Sequence[int] = (),
    ) -> None:
        self.folder = folder
        self.store = store
        # tensors, since workers share their memory; names stay in the mapped file of the store
        self.rows = torch.arange(len(store)) if rows is None else torch.as_tensor(rows)
        self.weights = None if weights is None else torch.as_tensor(weights)
        self.image_size = image_size
        self.min_scale = min_scale
        self.color_jitter = color_jitter
        self.seed = seed
        self.label_stride = label_stride
        self.sides = sides
        self.random_erasing = random_erasing
        self.resampling = resampling
        self.resized_side = resized_side

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def images(self) -> Iterator[tuple[str, int]]:
        """Key and label of every image, in order."""
        return map(self.store.image, self.rows.tolist())

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Any]:
        epoch, index = item
        rng = np.random.default_rng((self.seed, epoch, index))
        row = int(self.rows[index])
        key, label = self.store.image(row)
        runs = self.store.runs(row)
        top, left, height, width = random_crop(rng, runs.height, runs.width, self.min_scale)
        flip = rng.random() < 0.5
        # The epoch comes with the index, so a worker that outlives one knows it, too.
        size = self.side(epoch)

        def box(image_height: int, image_width: int) -> Box:
            self._check_size(key, (image_height, image_width), (runs.height, runs.width))
            y, x = image_height / runs.height, image_width / runs.width
            right, bottom = (left + width) * x, (top + height) * y
            return left * x, top * y, min(right, image_width), min(bottom, image_height)

        image = read_crop(self.folder / key, size, box, self.resampling)
        centres = np.arange(0, size, self.label_stride) + 0.5
        below = top + (centres * height / size).astype(np.int64)
        columns = left + ((size - centres if flip else centres) * width / size).astype(np.int64)
        part_labels = runs.at(below, columns).astype(np.int64)
        weight = 1.0 if self.weights is None else float(self.weights[row])
        return {
            "image": image.flip(2) if flip else image,
            "label": label,
            "part_labels": torch.from_numpy(part_labels),
            "part_weight": weight * float(part_labels.any()),
            "key": key,
            **self._drawn(rng, size),
        }

    def side(self, epoch: int) -> int:
        """Side of the crops of an epoch in pixels."""
        return self.sides[epoch] if epoch < len(self.sides) else self.image_size

    def _drawn(self, rng: np.random.Generator, size: int) -> dict[str, Tensor]:
        """What the device is to do with the image."""
        drawn = {}
        if self.color_jitter:
            factors = 1 + rng.uniform(-1, 1, 3) * self.color_jitter
            drawn["colour"] = torch.from_numpy(factors.astype(np.float32))
        if self.random_erasing:
            drawn["erase"] = erased_box(rng, self.random_erasing, size)
        return drawn

    def _check_size(self, key: str, found: tuple[int, int], labels: tuple[int, int]) -> None:
        side, expected = self.resized_side, labels
        if side is not None:
            expected = resized_size(*labels, side)
        if found != expected:
            remedy = (
                "restore the image, or delete the labels' run folder and run make "
                "stage2-pseudolabels again"
                if side is None
                else "delete it and run python -m pipeline resize_images again"
            )
            if side is None:  # copies are made without EXIF
                orientation = read_header(self.folder / key).orientation
                remedy = turned_reason(orientation, found, labels) or remedy
            raise UserError(
                f"{self.folder / key} is {found[0]}x{found[1]}, its part labels are "
                f"{labels[0]}x{labels[1]}: {remedy}"
            )


def random_crop(
    rng: np.random.Generator, height: int, width: int, min_scale: float
) -> tuple[int, int, int, int]:
    """A random resized crop as Inception trains on: area share and aspect ratio at random.

    Args:
        rng: source of randomness.
        height: of the image in pixels.
        width: of the image in pixels.
        min_scale: least share of the area.

    Returns:
        Top, left, height and width in pixels; the largest centred crop of a permitted aspect
        ratio if ten tries do not fit.
    """
    for _ in range(10):
        area = height * width * rng.uniform(min_scale, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = rng.integers(0, [height - h + 1, width - w + 1]).tolist()
            return top, left, h, w
    h, w = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w
