"""ObjectNet (Barbu et al. 2019) in its published layout: objects by name, mapped onto ImageNet."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from datamodules.evaluation.attack_batches import to_pixels
from datamodules.evaluation.evaluation_sets import (
    EvaluationSet,
    EvaluationSetting,
    EvaluationSource,
    MissingSet,
)
from datamodules.evaluation.ood_sets import IMAGENET_CLASSES, FolderSet, folder_problem
from datamodules.files.errors import MissingInputError, UserError
from datamodules.files.json_files import read_json
from datamodules.images.image_files import read_image, visible_folders

BORDER = 2  # red pixels on each side, so that no one trains on the images unawares
SEPARATOR = "; "
LABELS, CLASSES = "folder_to_objectnet_label.json", "objectnet_to_imagenet_1k.json"
NUMBERS, NAMES = "pytorch_to_imagenet_2012_id.json", "imagenet_to_label_2012_v2"
REMEDY = "restore the file of the release"
OTHERS = "classes without an object"
Entry = TypeVar("Entry", str, int)


class ObjectNet(EvaluationSource):
    """The objects of ObjectNet that ImageNet has classes for, without their red border.

    An image is right if the answer is any of the ImageNet classes that its object is mapped to.
    Images of objects without a class are left out. Needs a model of the 1,000 classes, in the
    order of the sorted WNIDs, as the mapping numbers them.

    Args:
        folder: `objectnet-1.0`, with `images/<object>/*.png` and `mappings/`; None if there is
            none.
        mask: mask out the logits of the classes that no object is mapped to; else they are
            answers like any other, and wrong.
    """

    def __init__(self, folder: Path | None = None, mask: bool = False) -> None:
        self.folder = folder
        self.mask = mask

    def sets(self, setting: EvaluationSetting) -> list[EvaluationSet]:
        """The one set, `objectnet`.

        Raises:
            UserError: if a mapping is malformed or does not know an object's folder.
        """
        problem = folder_problem(self.folder, "objectnet-1.0, with images/ and mappings/")
        if not problem and self.folder is not None:
            problem = _problem(Path(self.folder), setting)
        if problem or self.folder is None:
            return [MissingSet("objectnet", "ood", problem)]
        images = Path(self.folder) / "images"
        classes = classes_of_folders(Path(self.folder) / "mappings")
        found = [path.name for path in visible_folders(images)]
        labels = {name: place for place, name in enumerate(sorted(classes))}
        chosen = _BorderedSet.of_classes(
            "objectnet",
            "ood",
            images,
            setting,
            labels={name: labels[name] for name in found if name in labels},
        )
        if unknown := [name for name in found if name not in _known_folders(images.parent)]:
            raise UserError(
                f"{images / unknown[0]} is no folder that mappings/{LABELS} knows: take it out, or "
                f"{REMEDY}"
            )
        chosen.groups = self._groups(classes, labels)
        chosen.group_names = (*labels, *([] if self.mask else [OTHERS]))
        chosen.settings = {**chosen.settings, "border": BORDER, "mask": self.mask}
        return [chosen]

    def _groups(self, classes: Mapping[str, list[int]], labels: Mapping[str, int]) -> Tensor:
        """Group of each class: an object's, for others -1 or, not masked out, one more group."""
        groups = torch.full((IMAGENET_CLASSES,), -1 if self.mask else len(labels))
        for name, members in classes.items():
            groups[members] = labels[name]
        return groups


class _BorderedSet(FolderSet):
    """Images in a border that is cut off before anything else."""

    def image(self, key: str) -> Tensor:
        """Cut, resized and cropped about the centre: uint8 `(3, image_size, image_size)`.

        Raises:
            UserError: if the image is nothing but border.
        """
        image = read_image(self.folder / key)
        width, height = image.size
        if min(width, height) <= 2 * BORDER:
            raise UserError(
                f"{self.folder / key} has {width}x{height} pixels, nothing inside its border of "
                f"{BORDER}: {REMEDY}"
            )
        inner = image.crop((BORDER, BORDER, width - BORDER, height - BORDER))
        return to_pixels(inner, self.resize, self.image_size, self.interpolation)


def classes_of_folders(mappings: Path) -> dict[str, list[int]]:
    """ImageNet classes, by position among the sorted WNIDs, of each folder that has any.

    Args:
        mappings: the folder of the release: labels of the folders, names of ImageNet classes by
            label (several parted by `; `), position by ILSVRC number and names by that number.

    Raises:
        MissingInputError: if a file is missing.
        UserError: if a file is damaged, or they do not fit each other.
    """
    numbers = _names(mappings / NAMES)
    positions: dict[str, int] = {}
    for position, number in _entries(mappings / NUMBERS, int).items():
        if not 0 <= number < len(numbers) or not position.isdecimal():
            raise UserError(
                f"{mappings / NUMBERS} says {position}: {number}, which is no line of {NAMES}: "
                f"{REMEDY}"
            )
        # a name of two classes says neither
        positions[numbers[number]] = -1 if numbers[number] in positions else int(position)
    known = _entries(mappings / CLASSES, str)
    owners: dict[int, str] = {}
    found: dict[str, list[int]] = {}
    for folder, label in _entries(mappings / LABELS, str).items():
        for name in known[label].split(SEPARATOR) if label in known else ():
            place = positions.get(name.strip(), -1)
            if not 0 <= place < IMAGENET_CLASSES:
                raise UserError(
                    f"{mappings / CLASSES}: {label} is mapped to '{name}', which is no line of "
                    f"{NAMES}, or two: {REMEDY}"
                )
            if owners.setdefault(place, folder) != folder:
                raise UserError(
                    f"{mappings / CLASSES} maps both {owners[place]} and {folder} to '{name}': "
                    f"{REMEDY}"
                )
            found.setdefault(folder, []).append(place)
    return found


def _entries(path: Path, kind: type[Entry]) -> dict[str, Entry]:
    """A JSON object whose entries are all of one kind."""
    content = read_json(path, REMEDY)
    for name, value in content.items():
        if type(value) is not kind:  # a bool is no number here
            word = "text" if kind is str else "number"
            raise UserError(f"{path}: the entry of {name} is no {word}: {REMEDY}")
    return content


def _names(path: Path) -> list[str]:
    """Names of ImageNet's classes by line."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except FileNotFoundError:
        raise MissingInputError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): {REMEDY}") from None


def _known_folders(folder: Path) -> set[str]:
    return set(_entries(folder / "mappings" / LABELS, str))


def _problem(folder: Path, setting: EvaluationSetting) -> str:
    """What keeps the folder from being measured, one line; empty if nothing does."""
    if len(setting.objects) != IMAGENET_CLASSES:
        count = f"the model has {len(setting.objects)} classes"
        return f"ObjectNet is mapped to the 1,000 classes of ImageNet, {count}"
    places = [folder / "images", *(folder / "mappings" / n for n in (LABELS, CLASSES))]
    places += [folder / "mappings" / name for name in (NUMBERS, NAMES)]
    lacking = [place for place in places if not place.exists()]
    return f"{lacking[0]} does not exist (ObjectNet)" if lacking else ""
