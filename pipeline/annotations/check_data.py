"""Checks images, and annotations in the PartImageNet++ layout; writes a cleaned copy of these."""

import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from datamodules.annotations.problems import KINDS, Problem
from datamodules.annotations.reports import ObjectReport
from datamodules.files.errors import UserError, os_errors
from datamodules.files.json_files import write_json
from pipeline.annotations.split_survey import SplitReport, survey_splits
from pipeline.annotations.survey import survey


@dataclass(frozen=True)
class DataCheck:
    """What was found in a data set.

    Attributes:
        reports: one an object category, those of val after those of train.
        splits: of the images of `train` and, where there is one, `val`.
    """

    reports: list[ObjectReport]
    splits: dict[str, SplitReport]

    @property
    def problems(self) -> list[Problem]:
        """All problems, those of the annotations first."""
        of_annotations = [problem for report in self.reports for problem in report.problems]
        of_images = [problem for split in self.splits.values() for problem in split.problems]
        return of_annotations + of_images


def check_data(
    imagenet: Path,
    pinpp: Path,
    pinpp_val: Path | None = None,
    *,
    fix: Path | None = None,
    decode: bool = False,
    workers: int | None = None,
) -> DataCheck:
    """Checks all images and the annotations of train and, where given, of val.

    Args:
        imagenet: folder with `train/` and, for `pinpp_val`, `val/`; val is looked at where it is.
        pinpp: annotations of train images.
        pinpp_val: annotations of val images; their parts must be parts of `pinpp`.
        fix: missing or empty folder for a cleaned copy: `json/`, `including/`, and `val/json/`
            for val.
        decode: decode every image of train and val, annotated or not.
        workers: processes; None takes one a core.

    Raises:
        MissingInputError: if a folder is missing or empty.
        UserError: if `fix` is not empty or lies within the source.
    """
    sources = [folder for folder in (pinpp, pinpp_val) if folder is not None]
    with _staged(fix, sources) as staging:
        splits = survey_splits(imagenet, decode=decode, workers=workers)
        damaged = {name: split.undecodable for name, split in splits.items()}
        reports = survey(
            pinpp, imagenet, undecodable=damaged["train"], cleaned=staging, workers=workers
        )
        if pinpp_val is not None:
            parts = {r.name: frozenset(dict(r.masks_per_part)) for r in reports}
            reports += survey(
                pinpp_val,
                imagenet,
                split="val",
                undecodable=damaged.get("val", {}),
                known_parts=parts,
                cleaned=staging / "val" if staging is not None else None,
                workers=workers,
            )
    return DataCheck(reports, splits)


@contextmanager
def _staged(target: Path | None, sources: Sequence[Path]) -> Iterator[Path | None]:
    """A temporary folder that becomes `target` once all has gone well."""
    if target is None:
        yield None
        return
    for source in sources:
        if target.resolve().is_relative_to(source.resolve()):
            raise UserError(f"--fix {target} lies within {source}: name a folder outside of it")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"--fix {target} is not an empty folder: name another or empty it")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield staging
        staging.chmod(0o755)  # of mkdtemp nobody else could read it
        staging.replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def result(found: DataCheck, seconds: float) -> dict[str, Any]:
    """Outcome of a check as plain values: problems, counts by kind, sizes, verdict."""
    reports, problems = found.reports, found.problems
    return {
        "affects_training": any(problem.affects_training for problem in problems),
        "summary": dict(Counter(problem.kind for problem in problems).most_common()),
        "objects": len({report.name for report in reports if report.masks_per_image}),
        "images": sum(len(report.masks_per_image) for report in reports),
        "masks": sum(sum(report.masks_per_image) for report in reports),
        "splits": {name: split.sizes() for name, split in found.splits.items()},
        "seconds": round(seconds, 2),
        "problems": [asdict(p) | {"affects_training": p.affects_training} for p in problems],
    }


def _print(problems: Sequence[Problem], outcome: dict[str, Any]) -> None:
    for problem in problems:
        print(f"{'error' if problem.affects_training else 'warning'} {problem.kind} {problem}")
    table = Table(title="Problems by kind")
    for column in ("kind", "affects training", "number"):
        table.add_column(column, justify="right" if column == "number" else "left")
    for kind, number in outcome["summary"].items():
        table.add_row(kind, "yes" if KINDS[kind] else "no", f"{number:,}")
    console = Console()
    if outcome["summary"]:
        console.print(table)
    for name, split in outcome["splits"].items():
        turned = split["turned"]
        said = "" if turned is None else f"; {turned:,} with an EXIF orientation, used as stored"
        print(
            f"{name}: {split['classes']:,} classes, {split['images']:,} images, "
            f"{split['left_out']:,} hidden or other files left out{said}"
        )
    rate = outcome["masks"] / max(outcome["seconds"], 0.01)
    sizes = [f"{outcome[key]:,} {key}" for key in ("objects", "images", "masks")]
    print(f"sound: {', '.join(sizes)} in {outcome['seconds']:.1f} s, {rate:,.0f} masks/s")
    print(
        "training would be affected: mend what is listed above as error; --fix FOLDER writes the "
        "annotations without their bad entries"
        if outcome["affects_training"]
        else "training would not be affected"
    )


@os_errors()
def main(
    imagenet: Path,
    pinpp: Path,
    pinpp_val: Path | None = None,
    workers: int | None = None,
    fix: Path | None = None,
    decode: bool = False,
    json: Path | None = None,
) -> int:
    """Checks images and annotations and lists every problem with file and id.

    Args:
        imagenet: folder with train/ and, optionally, val/.
        pinpp: folder with json/ and including/.
        pinpp_val: annotations of val images, with json/.
        workers: processes, by default one a core.
        fix: missing or empty folder for a cleaned copy.
        decode: decode every image of train and val, which takes long.
        json: file for the outcome.

    Returns:
        Exit status: 1 if training would be affected, 0 otherwise.

    Raises:
        MissingInputError: if a folder is missing or empty.
        UserError: if `fix` cannot be used.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    started = time.monotonic()
    found = check_data(imagenet, pinpp, pinpp_val, fix=fix, decode=decode, workers=workers)
    outcome = result(found, time.monotonic() - started)
    _print(found.problems, outcome)
    if fix is not None:
        print(f"cleaned copy in {fix}: set PINPP to it")
    if json is not None:
        write_json(json, outcome)
    return int(outcome["affects_training"])
