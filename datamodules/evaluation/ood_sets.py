"""Out-of-distribution sets of ImageNet in their published folder layouts."""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from datamodules.evaluation.attack_batches import to_pixels
from datamodules.evaluation.evaluation_sets import (
    EvaluationSet,
    EvaluationSetting,
    EvaluationSource,
    MissingSet,
    Table,
    group_tensor,
)
from datamodules.files.names import require_utf8
from datamodules.images.image_files import is_image, read_image, visible_folders

IMAGENET_CLASSES = 1000


class FolderSet(EvaluationSet):
    """Image files below a folder.

    Args:
        name: name of the set.
        table: table it belongs to.
        folder: folder that the keys are relative to.
        items: pairs of key and label.
        setting: gives the input size.
        square: resize to `resize x resize` whatever the shape, as the authors do for
            ImageNet-A-Plus; else the shorter side is resized.
    """

    folder: Path

    def __init__(
        self,
        name: str,
        table: Table,
        folder: Path,
        items: Sequence[tuple[str, int]],
        setting: EvaluationSetting,
        square: bool = False,
    ) -> None:
        self.name = name
        self.table = table
        self.folder = folder
        self.image_size = setting.image_size
        self.resize = setting.resize
        self.interpolation = setting.interpolation
        self.square = square
        self.settings: Mapping[str, Any] = {"square": square, "resize": setting.resize}
        self._items = items

    @classmethod
    def of_classes(
        cls,
        name: str,
        table: Table,
        folder: Path,
        setting: EvaluationSetting,
        *,
        labels: Mapping[str, int],
        square: bool = False,
        only: Container[str] | None = None,
    ) -> "FolderSet":
        """The images of class folders, those without a label left out.

        Args:
            name: name of the set.
            table: table it belongs to.
            folder: folder that holds one folder for each class.
            setting: gives the input size.
            labels: label by name of the class folder.
            square: as for the class.
            only: keys of the images that are taken; None for all.

        Raises:
            UserError: if the name of an image is not UTF-8 text.
        """
        items = [
            (f"{name}/{file.name}", label)
            for name, label in sorted(labels.items())
            if (folder / name).is_dir()
            for file in sorted((folder / name).iterdir())
            if is_image(file.name) and (only is None or f"{name}/{file.name}" in only)
        ]
        require_utf8(folder, (key for key, _ in items))
        chosen = cls(name, table, folder, items, setting, square)
        chosen.missing = "" if items else f"{folder} holds no image of the model's classes"
        return chosen

    def items(self) -> Sequence[tuple[str, int]]:
        """Pairs of key (path below the folder) and label, in the order given."""
        return self._items

    def image(self, key: str) -> Tensor:
        """Resized and cropped about the centre: uint8 `(3, image_size, image_size)`."""
        image = read_image(self.folder / key)
        if not self.square:
            return to_pixels(image, self.resize, self.image_size, self.interpolation)
        return square_pixels(image, self.resize, self.image_size)


def square_pixels(image: Image.Image, resize: int, crop: int) -> Tensor:
    """Resizes to a square (bilinear), takes the centre: uint8 `(3, crop, crop)`."""
    size = [resize, resize]
    resized = functional.resize(image, size, interpolation=InterpolationMode.BILINEAR)
    cropped = functional.center_crop(resized, [crop, crop])
    return torch.from_numpy(np.array(cropped)).permute(2, 0, 1).contiguous()


def folder_problem(folder: Path | None, source: str) -> str:
    """Why a folder cannot be read, one line; empty if it can.

    Args:
        folder: the folder, None if none was given.
        source: what should be in it.
    """
    if folder is None:
        return f"no folder given: set `folder` of the source to {source}"
    return "" if Path(folder).is_dir() else f"folder {folder} does not exist ({source})"


class ClassFolders(EvaluationSource):
    """A set laid out as class folders: ImageNet-A-Plus, Sketch, Stylized, R, A, V2.

    Folders are named by WNID (any object name of the model). ImageNet-V2 numbers its folders
    instead, by the position among the 1,000 sorted WNIDs; that needs a model of all of them.
    Images of classes that the model does not know are left out.

    Args:
        name: name of the set.
        folder: folder that holds the class folders; None if there is none.
        mask: mask out the logits of all classes without a folder (R, A, A-Plus: 200 remain).
        square: resize to a square before the crop (the authors' code on ImageNet-A-Plus).
        table: table of the set; `texture` for a stylised copy of the val images, which is the
            texture test of Sitawarin et al. 2023.
    """

    def __init__(
        self,
        name: str,
        folder: Path | None = None,
        mask: bool = False,
        square: bool = False,
        table: Table = "ood",
    ) -> None:
        self.name = name
        self.folder = folder
        self.mask = mask
        self.square = square
        self.table: Table = table

    def sets(self, setting: EvaluationSetting) -> list[EvaluationSet]:
        """The one set."""
        problem = folder_problem(self.folder, "the class folders of the set")
        if problem or self.folder is None:
            return [MissingSet(self.name, self.table, problem)]
        folder = Path(self.folder)
        found = [path.name for path in visible_folders(folder)]
        labels = {name: label for label, name in enumerate(setting.objects)}
        if found and all(name.isdecimal() for name in found):
            if len(setting.objects) != IMAGENET_CLASSES:
                count = f"the model has {len(setting.objects)} classes"
                reason = f"{folder} numbers the 1,000 classes of ImageNet, {count}"
                return [MissingSet(self.name, self.table, reason)]
            labels = {name: int(name) for name in found if int(name) < IMAGENET_CLASSES}
        groups = None
        known = [name for name in found if name in labels]
        if self.mask and known:
            position = {label: i for i, label in enumerate(sorted(labels[name] for name in known))}
            objects = {setting.objects[label]: i for label, i in position.items()}
            groups = group_tensor(objects, setting.objects)
            labels = {name: position[labels[name]] for name in known}
        chosen = FolderSet.of_classes(
            self.name, self.table, folder, setting, labels=labels, square=self.square
        )
        if groups is not None:
            chosen.groups = groups
            chosen.group_names = tuple(objects)
        return [chosen]
