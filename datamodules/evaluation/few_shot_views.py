"""Pixels of few-shot classification: the whole image and the crop around its object."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.annotations.object_parts import Box
from datamodules.annotations.object_rules import ObjectRules
from datamodules.detection.annotated_images import open_annotated
from datamodules.evaluation.attack_batches import Interpolation, to_pixels
from datamodules.evaluation.few_shot_images import FewShotImages
from datamodules.images.image_files import read_image


class FewShotViews(Dataset[dict[str, Any]]):
    """Images as `key` and `views`, uint8 `(V, 3, size, size)` in the order of `images.views`.

    The whole image is shown as in an evaluation, the centre of the resized image. The box is
    widened to a square around it, moved so that it stays within the image; where the image is too
    narrow for that, the crop is what there is, and is squeezed.

    Args:
        images: where they lie and their boxes.
        keys: which of them.
        size: side of the squares, pixels.
        resize: length of the shorter side of the whole image before its centre is taken, pixels.
        interpolation: of the resizing.
        margin: around the box, as a share of its longer side, 0 or more.

    Raises:
        UserError: if the margin is negative.
    """

    def __init__(
        self,
        images: FewShotImages,
        keys: Sequence[str],
        size: int,
        resize: int,
        interpolation: Interpolation = "bicubic",
        margin: float = 0.0,
    ) -> None:
        self.images = images
        self.keys = keys
        self.size = size
        self.resize = resize
        self.interpolation: Interpolation = interpolation
        self._rules = ObjectRules("crop", margin, square=True, min_pixels=1, max_other=None)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> dict[str, Any]:
        key = self.keys[index]
        path = self.images.root / key
        if self.images.boxes is None:
            return {"key": key, "views": self._whole(read_image(path))[None]}
        known = self.images.boxes[key]
        picture = open_annotated(path, known.height, known.width)
        window = self._rules.window(known.box, known.height, known.width)
        return {
            "key": key,
            "views": torch.stack([self._whole(picture), self._crop(picture, window)]),
        }

    def _whole(self, picture: Image.Image) -> Tensor:
        return to_pixels(picture, self.resize, self.size, self.interpolation)

    def _crop(self, picture: Image.Image, window: Box) -> Tensor:
        resample = Image.Resampling[self.interpolation.upper()]
        # cut first: what lies outside of the box has no say in its border
        square = picture.crop(window).resize((self.size, self.size), resample)
        return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()
