"""Sets of images that a classifier is measured on without an attack: what each must offer."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from datamodules.evaluation.attack_batches import Interpolation
from datamodules.files.errors import MissingInputError

Table = Literal[
    "corruptions", "corruptions_3d", "ood", "humans", "subsets", "texture", "background"
]


@dataclass(frozen=True)
class EvaluationSetting:
    """What all sets of one evaluation share.

    Attributes:
        imagenet: folder with `train/` and `val/`.
        pinpp: folder with the part annotations of `train/`; None if there is none.
        objects: names of the object categories (WNIDs in ImageNet); the position is the class.
        image_size: side of the square network input, pixels.
        resize: length of the shorter side before the centre crop, pixels.
        seed: seed of everything that is drawn.
        interpolation: of the resizing.
        images: folder of the val images; None for `val/`.
        listed: label by key of the val images that a list chose; None for all.
    """

    imagenet: Path
    pinpp: Path | None
    objects: tuple[str, ...]
    image_size: int
    resize: int
    seed: int
    interpolation: Interpolation = "bicubic"
    images: Path | None = None
    listed: Mapping[str, int] | None = None

    @property
    def val(self) -> Path:
        """Folder of the val images."""
        return self.imagenet / "val" if self.images is None else self.images


class EvaluationSet(ABC):
    """Images with labels. Sets travel to worker processes, so they hold no open files.

    Attributes:
        name: unique name, such as `sketch` or `gaussian_noise/3`; folder of its records.
        table: table it belongs to.
        missing: why it cannot be measured, one line; empty if it can. `items` and `image` of a
            missing set are never called.
        groups: int64 `(num_classes,)`, the group of each class, -1 for a class that is masked
            out; None if the classes themselves are the answers.
        group_names: names of the groups by number; empty without groups.
        aggregate: how a group is scored: by the largest logit of its classes, or by their mean
            soft-max probability (Geirhos et al. 2021).
        settings: what decides the images besides `items`, as JSON-able values; records made
            under others are refused.
        folder: folder that keys are paths below; None where they are no files.
        files: hashes of what else the images are made from, by what it is.
    """

    name: str
    table: Table
    missing: str = ""
    groups: Tensor | None = None
    group_names: tuple[str, ...] = ()
    aggregate: Literal["mask", "mean"] = "mask"
    settings: Mapping[str, Any] = {}
    folder: Path | None = None
    files: Mapping[str, str] = {}

    @abstractmethod
    def items(self) -> Sequence[tuple[str, int]]:
        """Pairs of unique key and label (a class, with groups a group), in a fixed order."""

    @abstractmethod
    def image(self, key: str) -> Tensor:
        """The network input of one key: uint8 `(3, H, W)`, the same at every call."""

    def figures(
        self, keys: Sequence[str], labels: Sequence[int], predictions: Sequence[int]
    ) -> dict[str, float]:
        """Further figures besides the accuracy, by name, from the records of the whole set."""
        return {}


class MissingSet(EvaluationSet):
    """Stands in a table for a set that cannot be measured.

    Args:
        name: name of the set.
        table: table it belongs to.
        missing: the reason, one line.
    """

    def __init__(self, name: str, table: Table, missing: str) -> None:
        self.name = name
        self.table = table
        self.missing = missing

    def items(self) -> Sequence[tuple[str, int]]:
        """Nothing."""
        return []

    def image(self, key: str) -> Tensor:
        """Nothing can be read.

        Raises:
            MissingInputError: always.
        """
        raise MissingInputError(f"{self.name}: {self.missing}")


class EvaluationSource(ABC):
    """What a configuration names: expands to one set or many, such as 15 corruptions x 5.

    A source is made without touching any file. What it lacks is said in `missing` of its sets,
    what is wrong in a folder that is there is an error.
    """

    @abstractmethod
    def sets(self, setting: EvaluationSetting) -> list[EvaluationSet]:
        """The sets, in the order of the table.

        Raises:
            UserError: if what is given is malformed.
        """


def group_tensor(group_of: Mapping[str, int], objects: Sequence[str]) -> Tensor:
    """The group of each class: int64 `(num_classes,)`, -1 where a name has no group.

    Args:
        group_of: group number by category name; names that are no category do no harm.
        objects: category names by class.
    """
    return torch.tensor([group_of.get(name, -1) for name in objects], dtype=torch.int64)
