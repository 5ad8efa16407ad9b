"""Checks all images of a data set, in parallel where they are decoded."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.annotations.problems import Problem
from datamodules.annotations.split_checks import (
    SplitListing,
    by_object,
    decode_images,
    list_split,
)
from datamodules.files.process_map import work_through
from datamodules.images.imagenet_folder import class_folders

CHUNK = 256  # images of a task: seconds of work, so that the bar knows the time left


@dataclass(frozen=True)
class SplitReport:
    """What was found in a split folder.

    Attributes:
        listing: its images, and what is wrong with folders and names.
        damaged: problems of images that cannot be decoded, by key; None if none was decoded.
        turned: number of images with an EXIF orientation; None if none was decoded.
    """

    listing: SplitListing
    damaged: Mapping[str, Problem] | None = None
    turned: int | None = None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All problems, those of folders and names first."""
        return (*self.listing.problems, *(self.damaged or {}).values())

    @property
    def undecodable(self) -> dict[str, frozenset[str]]:
        """File names of the damaged images by object."""
        return by_object(self.damaged or {})

    def sizes(self) -> dict[str, Any]:
        """Counts as plain values."""
        return {
            "classes": self.listing.classes,
            "images": len(self.listing.keys),
            "left_out": self.listing.left_out,
            "turned": self.turned,
        }


def survey_splits(
    imagenet: Path, *, decode: bool = False, workers: int | None = None
) -> dict[str, SplitReport]:
    """Reports on `train`, and on `val` where there is one.

    Args:
        imagenet: folder with `train/` and, optionally, `val/`.
        decode: decode every image.
        workers: processes; None takes one a core, 1 or less stays in this one.

    Raises:
        MissingInputError: if there is no `train/`.
        UserError: if a worker process was killed.
    """
    listings = {"train": list_split(imagenet / "train")}
    if (imagenet / "val").is_dir():
        known = frozenset(class_folders(imagenet / "train"))
        listings["val"] = list_split(imagenet / "val", known)
    if not decode:
        return {name: SplitReport(listing) for name, listing in listings.items()}
    return {name: _decoded(listing, workers) for name, listing in listings.items()}


def _decoded(listing: SplitListing, workers: int | None) -> SplitReport:
    keys = sorted(listing.keys)
    tasks = [
        (listing.split, tuple(keys[start : start + CHUNK])) for start in range(0, len(keys), CHUNK)
    ]
    processes = workers if workers is not None else len(os.sched_getaffinity(0))
    damaged: dict[str, Problem] = {}
    turned = 0
    for found in work_through(decode_images, tasks, processes, f"Decoding {listing.split.name}"):
        damaged.update(found.damaged)
        turned += found.turned
    return SplitReport(listing, damaged, turned)
