"""Reader of part annotations in the layout released with PartImageNet++."""

import hashlib
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from datamodules.annotations.checks import CheckedFile
from datamodules.annotations.files import read_any_json
from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.problems import Problem
from datamodules.files.errors import MissingInputError, UserError
from datamodules.files.json_files import write_json
from datamodules.images.imagenet_folder import require_class_folders
from datamodules.masks.part_labels import ImageParts, PartInstance
from datamodules.masks.segmentations import shown

REMARKED = ("unusual_id", "padded_name")  # kinds of problems that the reader mends, and says so
VAL_FRACTION = 0.1  # the 9:1 split of PartImageNet++ §3.2


def read_annotations(
    pinpp: Path, vocabulary: PartVocabulary, images: Path | None = None
) -> list[ImageParts]:
    """Reads `pinpp/json/<object>.json`, one COCO-style file per object category.

    Image and category ids start again in every file; parts become global ids by name.
    Segmentations may be polygons, uncompressed or compressed run lengths. Whatever
    `annotation_problems.KINDS` says affects training is refused; masks without a pixel and exact
    repetitions of a mask are left out.

    Args:
        pinpp: folder that holds `json/`.
        vocabulary: must know every object and part that the files name.
        images: split folder (`imagenet/train`); when given, every listed image must exist.

    Returns:
        One record per image, sorted by key, instances in file order.

    Raises:
        MissingInputError: if the folder holds no files or a listed image does not exist.
        UserError: if an annotation cannot be read; the message names file and id.
    """
    files = sorted((pinpp / "json").glob("[!.]*.json"))
    if not files:
        raise MissingInputError(f"{pinpp / 'json'} holds no annotation files (<object>.json)")
    remarks: list[Problem] = []
    records = [record for file in files for record in _read_file(file, vocabulary, remarks)]
    if remarks:
        others = f" (and {len(remarks) - 1} more of the kind)" if len(remarks) > 1 else ""
        warnings.warn(f"{remarks[0]}{others}; make check-data lists them", stacklevel=2)
    for record in records:
        if images is not None and not os.path.isfile(images / record.key):
            require_class_folders(images)
            raise MissingInputError(
                f"{pinpp / 'json' / record.key.split('/')[0]}.json lists {record.key}, but "
                f"{images / record.key} does not exist: add the image or remove the entry"
            )
    return sorted(records, key=lambda record: record.key)


def annotations_hash(pinpp: Path) -> str:
    """SHA-256 of what the files of `pinpp/json` hold."""
    digest = hashlib.sha256()
    for file in sorted((pinpp / "json").glob("[!.]*.json")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def split_annotations(
    annotations: list[ImageParts], part: Literal["train", "val"], seed: int = 0
) -> list[ImageParts]:
    """The 9:1 split per object category (PartImageNet++ §3.2).

    Images are ranked by a seeded hash of their key within their category, so the split does
    not depend on their order, and a category with two or more images is never without val.
    """
    by_object = defaultdict(list)
    for record in annotations:
        by_object[record.label].append(record)
    val: set[str] = set()
    for records in by_object.values():
        ranked = sorted(records, key=lambda r: hashlib.sha256(f"{seed}:{r.key}".encode()).digest())
        count = max(1, round(VAL_FRACTION * len(ranked))) if len(ranked) > 1 else 0
        val.update(record.key for record in ranked[:count])
    return [record for record in annotations if (record.key in val) == (part == "val")]


def read_split(
    path: Path, annotations: list[ImageParts]
) -> tuple[list[ImageParts], list[ImageParts]]:
    """Reads a split file: JSON `{"train": [keys], "val": [keys]}`.

    Args:
        path: the file.
        annotations: every annotated image must stand in one of the two lists.

    Returns:
        The annotations of train and val, each in the order of `annotations`.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if it is no split, or keys are unknown, missing, repeated or in both lists.
    """
    content = read_any_json(path)
    content = content if isinstance(content, dict) else {}
    lists: list[Any] = [content.get("train"), content.get("val")]
    for keys in lists:
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise UserError(
                f'{path} is not a split file: it must be {{"train": [keys], "val": [keys]}} with '
                "keys such as n01440764/n01440764_10026.JPEG"
            )
    train, val = (set(keys) for keys in lists)
    known = {record.key for record in annotations}
    repeated = [key for keys in lists for key, n in Counter(keys).items() if n > 1]
    for wrong, what, remedy in (
        (repeated, "listed twice", "keep one"),
        (train & val, "in train and in val", "remove it from one of them"),
        ((train | val) - known, "not annotated", "remove it from the split"),
        (known - train - val, "annotated, but in neither list", "add it to train or val"),
    ):
        if wrong:
            others = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise UserError(f"{path}: {shown(min(wrong))}{others}: {what}; {remedy}")
    return [r for r in annotations if r.key in train], [r for r in annotations if r.key in val]


def write_split(path: Path, train: Sequence[ImageParts], val: Sequence[ImageParts]) -> None:
    """Writes a split file that `read_split` reads, whole or not at all.

    Raises:
        UserError: if an image is in both lists, or twice in one.
    """
    keys = {"train": [record.key for record in train], "val": [record.key for record in val]}
    twice = [key for key, n in Counter(keys["train"] + keys["val"]).items() if n > 1]
    if twice:
        raise UserError(f"{shown(twice[0])} is twice in the split that {path} was to hold")
    write_json(path, keys)


def _read_file(file: Path, vocabulary: PartVocabulary, remarks: list[Problem]) -> list[ImageParts]:
    name = file.stem
    if name not in vocabulary.objects:
        raise UserError(f"{file}: unknown object category {name}; known: {vocabulary.objects[:5]}")
    label = vocabulary.objects.index(name)
    checked = CheckedFile(file)
    for problem in checked.problems:
        if problem.affects_training:
            raise UserError(f"{problem}; make check-data lists and mends all such entries")
        if problem.kind in REMARKED:
            remarks.append(problem)
    try:
        part_ids = {
            category_id: vocabulary.part_id(name, category["name"])
            for category_id, category in checked.categories.items()
        }
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
    instances: dict[Any, list[PartInstance]] = {image_id: [] for image_id in checked.images}
    for mask in checked.masks:
        instances[mask.image].append(PartInstance(part_ids[mask.category], mask.rle, mask.box))
    return [
        ImageParts(
            image["file_name"], label, image["height"], image["width"], tuple(instances[image_id])
        )
        for image_id, image in checked.images.items()
    ]
