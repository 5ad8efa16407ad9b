"""Checks every object category of a data set, in parallel."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from datamodules.annotations.files import read_discarded
from datamodules.annotations.problems import Problem
from datamodules.annotations.reports import ObjectJob, ObjectReport, report_object
from datamodules.files.errors import MissingInputError
from datamodules.files.process_map import work_through
from datamodules.images.imagenet_folder import class_folders


def survey(
    pinpp: Path,
    imagenet: Path,
    *,
    split: str = "train",
    open_images: bool = True,
    undecodable: Mapping[str, frozenset[str]] = MappingProxyType({}),
    known_parts: dict[str, frozenset[str]] | None = None,
    cleaned: Path | None = None,
    workers: int | None = None,
) -> list[ObjectReport]:
    """Reports on every object category of an annotation folder, sorted by name.

    Args:
        pinpp: folder with `json/` and, optionally, `including/` and `discarded_data.json`.
        imagenet: folder with `train/`, whose folder names are the object categories.
        split: subfolder of `imagenet` that holds the annotated images.
        open_images: compare with the image files.
        undecodable: file names by object of images that have been found damaged.
        known_parts: part names by object, when another folder defines them.
        cleaned: folder for copies without bad entries.
        workers: processes; None takes one a core, 1 or less stays in this one.

    Raises:
        MissingInputError: if a folder is missing or empty.
        UserError: if a worker process was killed.
    """
    objects = frozenset(class_folders(imagenet / "train"))
    files = {file.stem for file in (pinpp / "json").glob("[!.]*.json")}
    if not files:
        raise MissingInputError(
            f"{pinpp / 'json'} holds no annotation files: set PINPP to the folder that "
            "holds json/ and including/"
        )
    discarded, unreadable = _discarded(pinpp)
    jobs = [
        ObjectJob(
            name,
            pinpp,
            imagenet / split if open_images else None,
            name in objects,
            None if known_parts is None else known_parts.get(name, frozenset()),
            discarded.get(name, frozenset()),
            undecodable.get(name, frozenset()),
            cleaned,
        )
        for name in sorted(files | {file.stem for file in (pinpp / "including").glob("[!.]*.txt")})
    ]
    processes = workers if workers is not None else len(os.sched_getaffinity(0))
    reports = list(work_through(report_object, jobs, processes, "Checking"))
    if known_parts is None:
        reports += [
            ObjectReport(name, (_without_annotations(pinpp, imagenet, name),))
            for name in objects - files
        ]
    if unreadable is not None:
        reports.append(ObjectReport("", (unreadable,)))
    return sorted(reports, key=lambda report: report.name)


def _discarded(pinpp: Path) -> tuple[dict[str, frozenset[str]], Problem | None]:
    file = pinpp / "discarded_data.json"
    if not os.path.lexists(file):
        return {}, None
    try:
        return read_discarded(file), None
    except (ValueError, FileNotFoundError) as error:
        message = str(error).removeprefix(f"{file} ")
        return {}, Problem("unreadable_discarded_list", str(file), "", message)


def _without_annotations(pinpp: Path, imagenet: Path, name: str) -> Problem:
    message = f"there is no {pinpp / 'json' / f'{name}.json'}"
    return Problem("object_without_annotations", str(imagenet / "train" / name), "", message)
