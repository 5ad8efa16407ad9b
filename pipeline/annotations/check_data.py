"""Checks annotations in the PartImageNet++ layout, and writes a cleaned copy of them."""

import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from datamodules.annotations.problems import KINDS
from datamodules.annotations.reports import ObjectReport
from datamodules.files.errors import UserError, os_errors
from datamodules.files.json_files import write_json
from pipeline.annotations.survey import survey


def check_data(
    imagenet: Path,
    pinpp: Path,
    pinpp_val: Path | None = None,
    *,
    fix: Path | None = None,
    decode: bool = False,
    workers: int | None = None,
) -> list[ObjectReport]:
    """Checks the annotations of train and, where given, of val.

    Args:
        imagenet: folder with `train/` and, for `pinpp_val`, `val/`.
        pinpp: annotations of train images.
        pinpp_val: annotations of val images; their parts must be parts of `pinpp`.
        fix: missing or empty folder for a cleaned copy: `json/`, `including/`, and `val/json/`
            for val.
        decode: read images whole, not only their headers.
        workers: processes; None takes one a core.

    Returns:
        One report an object category, those of val after those of train.

    Raises:
        MissingInputError: if a folder is missing or empty.
        UserError: if `fix` is not empty or lies within the source.
    """
    sources = [folder for folder in (pinpp, pinpp_val) if folder is not None]
    with _staged(fix, sources) as staging:
        reports = survey(pinpp, imagenet, decode=decode, cleaned=staging, workers=workers)
        if pinpp_val is not None:
            parts = {r.name: frozenset(dict(r.masks_per_part)) for r in reports}
            reports += survey(
                pinpp_val,
                imagenet,
                split="val",
                decode=decode,
                known_parts=parts,
                cleaned=staging / "val" if staging is not None else None,
                workers=workers,
            )
    return reports


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


def result(reports: Sequence[ObjectReport], seconds: float) -> dict[str, Any]:
    """Outcome of a check as plain values: problems, counts by kind, sizes, verdict."""
    problems = [problem for report in reports for problem in report.problems]
    return {
        "affects_training": any(problem.affects_training for problem in problems),
        "summary": dict(Counter(problem.kind for problem in problems).most_common()),
        "objects": len({report.name for report in reports if report.masks_per_image}),
        "images": sum(len(report.masks_per_image) for report in reports),
        "masks": sum(sum(report.masks_per_image) for report in reports),
        "seconds": round(seconds, 2),
        "problems": [asdict(p) | {"affects_training": p.affects_training} for p in problems],
    }


def _print(reports: Sequence[ObjectReport], outcome: dict[str, Any]) -> None:
    for problem in (problem for report in reports for problem in report.problems):
        print(f"{'error' if problem.affects_training else 'warning'} {problem.kind} {problem}")
    table = Table(title="Problems by kind")
    for column in ("kind", "affects training", "number"):
        table.add_column(column, justify="right" if column == "number" else "left")
    for kind, number in outcome["summary"].items():
        table.add_row(kind, "yes" if KINDS[kind] else "no", f"{number:,}")
    console = Console()
    if outcome["summary"]:
        console.print(table)
    rate = outcome["masks"] / max(outcome["seconds"], 0.01)
    sizes = [f"{outcome[key]:,} {key}" for key in ("objects", "images", "masks")]
    print(f"sound: {', '.join(sizes)} in {outcome['seconds']:.1f} s, {rate:,.0f} masks/s")
    print(
        "training would be affected: correct the entries above, or use --fix FOLDER"
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
    """Checks annotations in the PartImageNet++ layout and lists every problem with file and id.

    Args:
        imagenet: folder with train/ and, for pinpp_val, val/.
        pinpp: folder with json/ and including/.
        pinpp_val: annotations of val images, with json/.
        workers: processes, by default one a core.
        fix: missing or empty folder for a cleaned copy.
        decode: read images whole, which is slow.
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
    reports = check_data(imagenet, pinpp, pinpp_val, fix=fix, decode=decode, workers=workers)
    outcome = result(reports, time.monotonic() - started)
    _print(reports, outcome)
    if fix is not None:
        print(f"cleaned copy in {fix}: set PINPP to it")
    if json is not None:
        write_json(json, outcome)
    return int(outcome["affects_training"])
