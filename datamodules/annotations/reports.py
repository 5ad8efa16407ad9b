"""Checks all that a data set holds of one object category, and writes its cleaned copy."""

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.annotations.checks import CheckedFile
from datamodules.annotations.files import read_relations
from datamodules.annotations.problems import KINDS, Problem
from datamodules.files.errors import UserError
from datamodules.images.image_files import ImageHeader, read_header
from datamodules.images.orientation import SWAPS_SIDES, UPRIGHT, turned_reason
from datamodules.masks.segmentations import shown


@dataclass(frozen=True)
class ObjectJob:
    """What to check of one object category.

    Attributes:
        name: the object category.
        pinpp: folder with `json/` and, optionally, `including/`.
        images: split folder that holds `<name>/`; None does not look at images.
        known_object: whether the object is a folder of `imagenet/train`.
        known_parts: part names the object may have; None takes those that its file lists.
        discarded: file names that `discarded_data.json` lists for the object.
        undecodable: file names of images that are known to be damaged behind their headers, and
            have been reported; their entries are not sound.
        cleaned: folder for a copy without what affects training; None writes nothing.
    """

    name: str
    pinpp: Path
    images: Path | None = None
    known_object: bool = True
    known_parts: frozenset[str] | None = None
    discarded: frozenset[str] = frozenset()
    undecodable: frozenset[str] = frozenset()
    cleaned: Path | None = None


@dataclass(frozen=True)
class ObjectReport:
    """What was found for one object category; the counts are of sound entries.

    Attributes:
        name: the object category.
        problems: all problems, in the order of the files.
        masks_per_image: number of masks of every image.
        masks_per_part: number of masks by part name, parts without any included.
        relations: pairs (part, whole) of `including/`.
    """

    name: str
    problems: tuple[Problem, ...] = ()
    masks_per_image: tuple[int, ...] = ()
    masks_per_part: tuple[tuple[str, int], ...] = ()
    relations: tuple[tuple[str, str], ...] = ()


def report_object(job: ObjectJob) -> ObjectReport:
    """Checks `json/<name>.json`, `including/<name>.txt` and the images that they list.

    Problems of any kind end up in the report, never in an exception; only the cleaned copy can
    fail to be written, with an `OSError`.
    """
    file = job.pinpp / "json" / f"{job.name}.json"
    annotated = os.path.lexists(file)
    checked = CheckedFile(file, job.known_parts) if annotated else None
    if checked is not None:
        if not job.known_object:
            message = f"{shown(job.name)} is no folder of the training images"
            checked.report("unknown_object", "", message)
        _check_images(checked, job)
    names = {str(c["name"]) for c in checked.categories.values()} if checked is not None else set()
    relations, problems = _check_relations(job.pinpp / "including" / f"{job.name}.txt", names)
    if checked is None:
        return ObjectReport(job.name, tuple(problems))
    if job.cleaned is not None and job.known_object:
        problems += _write_cleaned(checked, relations, job.cleaned)
    per_image = Counter(mask.image for mask in checked.masks)
    per_part = Counter(checked.categories[mask.category]["name"] for mask in checked.masks)
    return ObjectReport(
        job.name,
        (*checked.problems, *problems),
        tuple(per_image[image_id] for image_id in checked.images),
        tuple((name, per_part[name]) for name in sorted(names)),
        tuple(relations),
    )


def _check_images(checked: CheckedFile, job: ObjectJob) -> None:
    dropped = []
    for image_id, entry in checked.images.items():
        where = f"image {shown(image_id)}"
        name = entry["file_name"].rpartition("/")[2]
        if name in job.discarded:
            message = f"{shown(entry['file_name'])} is listed in discarded_data.json"
            checked.report("discarded_image", where, message)
            dropped.append(image_id)
        if name in job.undecodable:
            dropped.append(image_id)
        elif job.images is not None:
            found = _image_problem(job.images / entry["file_name"], entry)
            if found is not None:
                checked.report(found[0], where, found[1])
            if found is not None and KINDS[found[0]]:
                dropped.append(image_id)
    checked.drop_images(dropped)


def _image_problem(path: Path, entry: dict[str, Any]) -> tuple[str, str] | None:
    """Kind and message of what is wrong with an image file, or uncertain; looks at its header."""
    name = shown(str(path))
    if not os.path.isfile(path):
        return "missing_image", f"{name} does not exist"
    try:
        header = read_header(path)
    except UserError as error:
        return "corrupt_image", str(error)
    listed = (entry["height"], entry["width"])
    if header.size != listed:
        message = (
            f"{name} is {header.height}x{header.width}, listed as {listed[0]}x{listed[1]} "
            "(height x width)"
        )
        reason = turned_reason(header.orientation, header.size, listed)
        return "size_mismatch", f"{message}: {reason}" if reason else message
    return None if header.orientation == UPRIGHT else _turned_image(name, header)


def _turned_image(name: str, header: ImageHeader) -> tuple[str, str]:
    """Kind and message of an image that viewers turn or mirror, annotated in its stored size."""
    turned = f"{name} has EXIF orientation {header.orientation}"
    if header.orientation in SWAPS_SIDES and header.height != header.width:
        return "turned_image", f"{turned}; it is annotated as stored, which is how it is used"
    size = f"{header.height}x{header.width} (height x width)"
    return (
        "turned_image_unclear",
        f"{turned}; {size} does not tell whether it is annotated as stored, which is how it is "
        "used, or turned: look at its masks",
    )


def _check_relations(
    file: Path, names: Iterable[str]
) -> tuple[list[tuple[str, str]], list[Problem]]:
    if not os.path.lexists(file):
        return [], []
    try:
        lines = read_relations(file)
    except ValueError as error:
        message = str(error).removeprefix(f"{file} ")
        return [], [Problem("unreadable_file", str(file), "", message)]
    known = frozenset(names)
    sound, problems = [], []
    for number, part, whole in lines:
        unknown = [name for name in (part, whole) if name not in known]
        if unknown:
            message = f"relation {shown(f'{part}:{whole}')}: unknown part {shown(unknown[0])}"
            kind, entry = "unknown_relation_part", f"line {number}"
            problems.append(Problem(kind, str(file), entry, message))
        else:
            sound.append((part, whole))
    return sound, problems


def _write_cleaned(
    checked: CheckedFile, relations: list[tuple[str, str]], folder: Path
) -> list[Problem]:
    try:
        text = json.dumps(checked.sound_content())
    except RecursionError:
        message = "is nested too deeply for a cleaned copy: restore or remove it"
        return [Problem("unreadable_file", str(checked.file), "", message)]
    if not checked.readable:
        return []
    (folder / "json").mkdir(parents=True, exist_ok=True)
    (folder / "json" / checked.file.name).write_text(text)
    if relations:
        (folder / "including").mkdir(exist_ok=True)
        lines = "".join(f"{part}:{whole}\n" for part, whole in relations)
        path = folder / "including" / f"{checked.file.stem}.txt"
        path.write_text(lines, encoding="utf-8")
    return []
