"""Images for validation and evaluation of a recogniser."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.images.image_files import read_image


def to_tensor(image: Image.Image) -> Tensor:
    """Pixels of an RGB image as uint8 `(3, H, W)`."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def resize_and_crop(image: Image.Image, resize: int, size: int) -> Image.Image:
    """Bicubic resize of the shorter side to `resize`, then the centre `size` x `size` crop."""
    scale = resize / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def balanced_positions(labels: Sequence[int], seed: int) -> list[int]:
    """A seeded order of all images in which any first n are balanced over the classes.

    Args:
        labels: class label of every image.
        seed: seed of the choice within and of the order over classes.

    Returns:
        Positions in `labels`: one image of every class, in an order that changes each round.
    """
    rng = np.random.default_rng(seed)
    by_class = defaultdict(list)
    for position, label in enumerate(labels):
        by_class[label].append(position)
    shuffled = [rng.permutation(by_class[label]).tolist() for label in sorted(by_class)]
    rounds = ([i for i in some if i is not None] for some in zip_longest(*shuffled))
    return [i for some in rounds for i in rng.permutation(some).tolist()]


class RecognitionImages(Dataset[dict[str, Any]]):
    """Centre crops with key and label.

    Args:
        folder: split folder.
        images: pairs of key and label.
        image_size: side of the crop in pixels.
        resize: shorter side before the crop in pixels.
    """

    def __init__(
        self, folder: Path, images: Sequence[tuple[str, int]], image_size: int, resize: int
    ) -> None:
        self.folder = folder
        self.images = images
        self.image_size = image_size
        self.resize = resize

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        key, label = self.images[index]
        image = resize_and_crop(read_image(self.folder / key), self.resize, self.image_size)
        return {"image": to_tensor(image), "label": label, "key": key}
