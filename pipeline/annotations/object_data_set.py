"""The data set that an import writes: annotations of train and val that fit each other."""

import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from datamodules.annotations.object_rules import Dropped
from datamodules.annotations.part_imagenet import PartImage
from datamodules.annotations.pinpp_writer import PinppWriter

Split = Literal["train", "val"]
FOLDERS: dict[Split, str] = {"train": "pinpp", "val": "val_parts"}


class ImportedImage(NamedTuple):
    """The images that became of one, how many objects it had, and those dropped."""

    split: Split
    images: list[PartImage]
    objects: int
    dropped: Dropped


class ObjectDataSet:
    """Annotations below a folder whose images are written beside, to `imagenet/<split>`.

    Args:
        folder: holds no annotations yet.
        splits: those that the source has.

    Attributes:
        objects: how many objects the source annotates.
        dropped: how often something was left out, by reason and name.
        categories: how many images each category has, by split.
    """

    def __init__(self, folder: Path, splits: Iterable[Split]) -> None:
        self.objects = 0
        self.dropped: Dropped = Counter()
        self.categories: dict[Split, Counter[str]] = {split: Counter() for split in splits}
        self._folder = folder
        self._writers = {split: PinppWriter(folder / FOLDERS[split]) for split in self.categories}

    def add(self, imported: ImportedImage) -> None:
        """Adds what became of an image."""
        self.objects += imported.objects
        self.dropped.update(imported.dropped)
        for image in imported.images:
            self._writers[imported.split].add(image)
            self.categories[imported.split][image.object_name] += 1

    def finish(self) -> None:
        """Makes val fit train and puts the files together.

        A category without an image of train leaves val, for no stage could know it; a part that
        val alone shows becomes a part of train's vocabulary.
        """
        if "val" in self.categories:
            self._fit_val()
        for writer in self._writers.values():
            writer.finish()
        (self._folder / FOLDERS["train"] / "including").mkdir()

    def counts(self) -> dict[str, Any]:
        """Categories and images by split, parts by category, and what was left out."""
        parts = self._writers["train"].parts
        return {
            "categories": {s: dict(sorted(ns.items())) for s, ns in self.categories.items()},
            "parts": {name: sorted(parts[name]) for name in sorted(parts)},
            "images": {split: numbers.total() for split, numbers in self.categories.items()},
            "annotated_objects": self.objects,
            "dropped": by_reason(self.dropped),
        }

    def _fit_val(self) -> None:
        train, val = (self.categories[split] for split in FOLDERS)
        writer = self._writers["val"]
        for name in sorted(set(val) - set(train)):
            writer.discard(name)
            shutil.rmtree(self._folder / "imagenet" / "val" / name)
            self.dropped["only_in_val", name] += val.pop(name)
        for name, parts in writer.parts.items():
            for part in parts:
                self._writers["train"].declare(name, part)
        if not val:  # empty folders would be taken for a data set
            del self._writers["val"]
            for folder in (FOLDERS["val"], "imagenet/val"):
                shutil.rmtree(self._folder / folder, ignore_errors=True)


def by_reason(dropped: Dropped) -> dict[str, dict[str, int]]:
    """Counts of what was left out: reason -> name -> number, both in alphabetic order."""
    table: dict[str, dict[str, int]] = {}
    for (reason, name), number in sorted(dropped.items()):
        table.setdefault(reason, {})[name] = number
    return table
