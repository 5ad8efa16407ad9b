"""Checks every object category of a data set, in parallel."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from datamodules.annotations.files import read_discarded
from datamodules.annotations.problems import Problem
from datamodules.annotations.reports import ObjectJob, ObjectReport, report_object
from datamodules.files.errors import MissingInputError, UserError
from datamodules.images.imagenet_folder import list_objects


def survey(
    pinpp: Path,
    imagenet: Path,
    *,
    split: str = "train",
    open_images: bool = True,
    decode: bool = False,
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
        decode: read images whole, not only their headers.
        known_parts: part names by object, when another folder defines them.
        cleaned: folder for copies without bad entries.
        workers: processes; None takes one a core, 1 or less stays in this one.

    Raises:
        MissingInputError: if a folder is missing or empty.
        UserError: if a worker process was killed.
    """
    objects = frozenset(list_objects(imagenet))
    files = {file.stem for file in (pinpp / "json").glob("*.json")}
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
            decode,
            cleaned,
        )
        for name in sorted(files | {file.stem for file in (pinpp / "including").glob("*.txt")})
    ]
    reports = _run(jobs, workers if workers is not None else len(os.sched_getaffinity(0)))
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


def _run(jobs: Sequence[ObjectJob], workers: int) -> list[ObjectReport]:
    # fresh interpreters: a fork would copy whatever threads run here
    context = multiprocessing.get_context("spawn")
    parallel = workers > 1 and len(jobs) > 1
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context) if parallel else nullcontext()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files, {task.fields[masks]:,} masks"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    reports: list[ObjectReport] = []
    try:
        with pool as executor, Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task("checking", total=len(jobs), masks=0)
            if executor is None:
                stream: Iterator[ObjectReport] = map(report_object, jobs)
            else:
                futures = [executor.submit(report_object, job) for job in jobs]
                stream = (future.result() for future in as_completed(futures))
            masks = 0
            try:
                for report in stream:
                    reports.append(report)
                    masks += sum(report.masks_per_image)
                    progress.update(task, advance=1, masks=masks)
            finally:
                if executor is not None:
                    executor.shutdown(wait=False, cancel_futures=True)
    except BrokenProcessPool:
        raise UserError(
            "a checking process was killed, most likely for memory: give fewer --workers"
        ) from None
    return reports
