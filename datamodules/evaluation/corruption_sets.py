"""ImageNet-C, published or made on the fly from val images, and ImageNet-3DCC as published."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.corruptions import CORRUPTIONS, SEVERITIES, corrupt, corruption_seed
from datamodules.corruptions.digital import through_jpeg
from datamodules.corruptions.frost_overlays import overlay_problem, overlays_hash
from datamodules.evaluation.attack_batches import to_pixels
from datamodules.evaluation.evaluation_sets import (
    EvaluationSet,
    EvaluationSetting,
    EvaluationSource,
    MissingSet,
    Table,
)
from datamodules.evaluation.ood_sets import FolderSet, folder_problem
from datamodules.images.image_files import read_image
from datamodules.images.imagenet_folder import list_images

SMALLEST = 32
PUBLISHED_QUALITY = 85
CORRUPTIONS_3D = (
    "near_focus",
    "far_focus",
    "fog_3d",
    "flash",
    "color_quant",
    "low_light",
    "xy_motion_blur",
    "z_motion_blur",
    "iso_noise",
    "bit_error",
    "h265_abr",
    "h265_crf",
)


class GeneratedCorruption(EvaluationSet):
    """The val images under one corruption in one severity, made when they are asked for.

    Args:
        corruption: one of `CORRUPTIONS`.
        severity: 1 to 5.
        items: pairs of key (path below `val/`) and label.
        setting: gives folder, input size and seed.
        frost_images: folder of the frost overlays; None takes those of `imagecorruptions`.
        as_jpeg: pass images through a JPEG of quality 85, as the published files were.
    """

    folder: Path

    def __init__(
        self,
        corruption: str,
        severity: int,
        items: Sequence[tuple[str, int]],
        setting: EvaluationSetting,
        frost_images: Path | None,
        as_jpeg: bool,
    ) -> None:
        self.name = f"{corruption}/{severity}"
        self.table = "corruptions"
        self.corruption = corruption
        self.severity = severity
        self.folder = setting.val
        self.resize = setting.resize
        self.image_size = setting.image_size
        self.interpolation = setting.interpolation
        self.seed = setting.seed
        self.frost_images = frost_images
        self.as_jpeg = as_jpeg
        self.settings: Mapping[str, Any] = {"generated": True, "as_jpeg": as_jpeg}
        if corruption == "frost":
            self.files = {"frost_images": overlays_hash(frost_images)}
        self._items = items

    def items(self) -> Sequence[tuple[str, int]]:
        """Pairs of key and label, in the order given."""
        return self._items

    def image(self, key: str) -> Tensor:
        """Resized, cropped about the centre, corrupted: uint8 `(3, image_size, image_size)`.

        The draws depend on seed, key, corruption and severity alone.
        """
        image = read_image(self.folder / key)
        pixels = to_pixels(image, self.resize, self.image_size, self.interpolation)
        clean = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
        seed = corruption_seed(self.seed, key, self.corruption, self.severity)
        corrupted = corrupt(clean, self.corruption, self.severity, seed, self.frost_images)
        if self.as_jpeg:
            corrupted = through_jpeg(corrupted, PUBLISHED_QUALITY, optimize=True)
        return torch.from_numpy(corrupted.copy()).permute(2, 0, 1).contiguous()


class Corruptions(EvaluationSource):
    """The 15 corruptions of ImageNet-C in 5 severities: 75 sets `<corruption>/<severity>`.

    Images are corrupted after resizing and cropping, as in the PartImageNet++ paper's code. The
    published files differ in three ways: resized with Pillow's bilinear filter, drawn without a
    seed, and saved as JPEG of quality 85; `as_jpeg` does the last.

    Args:
        folder: the published ImageNet-C, with `<corruption>/<severity>/<object>/`, alone or
            below the folders of its archives (`blur/defocus_blur/...`); None makes the images
            from `val/`. Published files are of 224 px and used as they are, for another input
            size resized.
        frost_images: folder with the published frost1.png to frost5.jpg; None takes those of an
            installed `imagecorruptions`.
        as_jpeg: pass generated images through a JPEG of quality 85.
    """

    def __init__(
        self,
        folder: Path | None = None,
        frost_images: Path | None = None,
        as_jpeg: bool = False,
    ) -> None:
        self.folder = folder
        self.frost_images = frost_images
        self.as_jpeg = as_jpeg

    def sets(self, setting: EvaluationSetting) -> list[EvaluationSet]:
        """The 75 sets in the published order; those that cannot be measured say why.

        Raises:
            UserError: if `val/` holds a category that `train/` does not.
        """
        problems = self._problems(setting)
        val = setting.val
        items: Sequence[tuple[str, int]] = []
        if self.folder is None and not all(problems.values()):
            chosen = setting.listed
            items = list_images(val, setting.objects) if chosen is None else list(chosen.items())
        return [
            MissingSet(f"{name}/{severity}", "corruptions", problems[name])
            if problems[name]
            else self._set(name, severity, items, setting)
            for name in CORRUPTIONS
            for severity in SEVERITIES
        ]

    def _problems(self, setting: EvaluationSetting) -> dict[str, str]:
        """What keeps each corruption from being measured, one line; empty if nothing does."""
        common = ""
        val = setting.val
        if self.folder is not None:
            if not Path(self.folder).is_dir():
                common = f"folder {self.folder} does not exist (ImageNet-C)"
        elif not val.is_dir():
            common = f"folder {val} does not exist, nothing to corrupt"
        elif setting.image_size < SMALLEST:
            common = f"images of {setting.image_size} px are too small, {SMALLEST} is the least"
        problems = dict.fromkeys(CORRUPTIONS, common)
        if self.folder is None and not common:
            problems["frost"] = overlay_problem(self.frost_images, setting.image_size)
        return problems

    def _set(
        self,
        name: str,
        severity: int,
        items: Sequence[tuple[str, int]],
        setting: EvaluationSetting,
    ) -> EvaluationSet:
        if self.folder is None:
            return GeneratedCorruption(
                name, severity, items, setting, self.frost_images, self.as_jpeg
            )
        whole = f"{name}/{severity}"
        return published_set(whole, "corruptions", Path(self.folder), setting, "ImageNet-C")


class Corruptions3D(EvaluationSource):
    """ImageNet-3DCC (Kar et al. 2022): 12 corruptions in 5 severities, made with the scene's depth.

    Its files are taken for crops of 224 px, as those of ImageNet-C. There is no AlexNet error to
    divide by here, so no mCE.

    Args:
        folder: the published folders `<corruption>/<severity>/<object>/`; None if there are none.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def sets(self, setting: EvaluationSetting) -> list[EvaluationSet]:
        """The 60 sets `<corruption>/<severity>`; without a folder one a corruption that says so.

        Raises:
            UserError: if the name of an image is not UTF-8 text.
        """
        problem = folder_problem(self.folder, "the corruptions of ImageNet-3DCC")
        if problem or self.folder is None:
            return [MissingSet(name, "corruptions_3d", problem) for name in CORRUPTIONS_3D]
        return [
            published_set(
                f"{name}/{severity}", "corruptions_3d", Path(self.folder), setting, "ImageNet-3DCC"
            )
            for name in CORRUPTIONS_3D
            for severity in SEVERITIES
        ]


def published_set(
    name: str, table: Table, root: Path, setting: EvaluationSetting, source: str
) -> EvaluationSet:
    """One corruption in one severity as published; where its folder is missing, that it is.

    Args:
        name: `<corruption>/<severity>`, which is its folder below `root` or one further folder.
        table: table it belongs to.
        root: folder of the data set.
        setting: gives the input size and the images that are taken.
        source: name of the data set.
    """
    corruption, severity = name.split("/")
    places = [root / corruption, *sorted(root.glob(f"[!.]*/{corruption}"))]
    folder = next((place for place in places if place.is_dir()), root / corruption) / severity
    if not folder.is_dir():
        return MissingSet(name, table, f"folder {folder} does not exist ({source})")
    labels = {name: label for label, name in enumerate(setting.objects)}
    chosen = FolderSet.of_classes(name, table, folder, setting, labels=labels, only=setting.listed)
    # the files are crops already: no margin to cut off
    chosen.resize = chosen.image_size
    chosen.settings = {"published": True}
    return chosen
