"""The images of few-shot classification: which there are of each class, and where objects lie."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datamodules.annotations.object_boxes import object_box
from datamodules.annotations.object_parts import Box
from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.files.errors import MissingInputError, UserError
from datamodules.images.evaluation_folder import EvaluationFolder

View = Literal["image", "box"]


@dataclass(frozen=True)
class AnnotatedBox:
    """Box of the object and the size that the annotation says its image has, in pixels."""

    box: Box
    height: int
    width: int


@dataclass(frozen=True)
class FewShotImages:
    """Images by class.

    Attributes:
        root: folder that keys are relative to.
        by_class: sorted keys by name of the class.
        boxes: where the object lies, by key; None without annotations.
        left_out: annotated images of these classes in which no part has a pixel.
        boxes_hash: SHA-256 of all boxes, also those of other classes; empty without annotations.
    """

    root: Path
    by_class: dict[str, tuple[str, ...]]
    boxes: dict[str, AnnotatedBox] | None = None
    left_out: int = 0
    boxes_hash: str = ""

    @property
    def views(self) -> tuple[View, ...]:
        """What of an image can be shown to a network."""
        return ("image",) if self.boxes is None else ("image", "box")

    @classmethod
    def read(
        cls,
        imagenet: Path,
        pinpp: Path | None = None,
        pinpp_val: Path | None = None,
        classes: Path | None = None,
    ) -> "FewShotImages":
        """Finds the images: annotated ones of val or train, else all of val.

        With annotations only images that have a box count, for both views, so that these are
        compared on the same images.

        Args:
            imagenet: folder with `train/` and `val/`, or with `val/` alone.
            pinpp: folder with `json/` of train images.
            pinpp_val: folder with `json/` of val images, whose images are taken instead.
            classes: list of the classes to keep to, see `read_class_list`; None for all.

        Raises:
            MissingInputError: if a folder, the list, or an annotated image is missing.
            UserError: if annotations or the list are wrong.
        """
        folder = EvaluationFolder.read(imagenet)
        known = folder.objects
        kept = None if classes is None else set(read_class_list(classes, known))
        by_class: dict[str, list[str]] = defaultdict(list)
        if kept is not None:  # a class without an image is one with too few
            by_class |= {name: [] for name in kept}
        annotations = pinpp_val or pinpp
        if annotations is None:
            for key, label in folder.images():
                if kept is None or known[label] in kept:
                    by_class[known[label]].append(key)
            return cls(folder.root, _sorted(by_class))
        root = imagenet / ("train" if pinpp_val is None else "val")
        vocabulary = PartVocabulary.from_pinpp(pinpp or annotations, imagenet, known)
        boxes: dict[str, AnnotatedBox] = {}
        digest = hashlib.sha256()
        left_out = 0
        for parts in read_annotations(annotations, vocabulary, root):
            name = known[parts.label]
            box = object_box(parts)
            digest.update(json.dumps([parts.key, box]).encode())
            if kept is not None and name not in kept:
                continue
            if box is None:
                left_out += 1
                continue
            by_class[name].append(parts.key)
            boxes[parts.key] = AnnotatedBox(box, parts.height, parts.width)
        return cls(root, _sorted(by_class), boxes, left_out, digest.hexdigest())


def read_class_list(path: Path, known: Sequence[str]) -> tuple[str, ...]:
    """Reads a list of class folders, one a line; what follows a blank is a remark.

    Args:
        path: the file.
        known: names of all classes.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if it names no class, one twice, or one that the data does not have.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise MissingInputError(f"list of classes {path} does not exist") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise UserError(f"{path} is no list of classes: it is not text") from None
    have = set(known)
    names: dict[str, int] = {}
    for row, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        name = text if text in have else text.split()[0]
        if name not in have:
            near = ", ".join(sorted(have)[:3])
            raise UserError(f"{path}:{row}: {name[:80]} is no class of the data, such as {near}")
        if name in names:
            raise UserError(f"{path}:{row}: {name} is listed twice, first in line {names[name]}")
        names[name] = row
    if not names:
        raise UserError(f"{path} names no class: write one class folder a line")
    return tuple(names)


def _sorted(by_class: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(sorted(by_class[name])) for name in sorted(by_class)}
