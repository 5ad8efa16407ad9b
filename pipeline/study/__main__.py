"""The small-scale study of Tables 2, 5 and 6: all rows over several seeds, resumable over days.

python -m pipeline.study --data part_shapes --seeds 3 --write-docs
"""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from datamodules.files.errors import MissingInputError, UserError
from pipeline.__main__ import one_line
from pipeline.runs.error_exit import error_exit
from pipeline.study.commands import StudyCommands, find_data
from pipeline.study.document import write_document
from pipeline.study.plot import draw_study
from pipeline.study.processes import Processes, StepFailed
from pipeline.study.results import write_results
from pipeline.study.rows import chosen_rows
from pipeline.study.study import Study


def parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    made = argparse.ArgumentParser(prog="pipeline.study", description=__doc__)
    made.add_argument("--data", default="part_shapes", help="part_shapes, or a data set's folder")
    made.add_argument("--out", type=Path, default=Path("runs/study"), help="folder of all studies")
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--rows", nargs="+", help="some rows only")
    made.add_argument("--labels", type=Path, help="run folder of stage 2, instead of making one")
    made.add_argument("--unfiltered", type=Path, help="the same without the category filter")
    made.add_argument("--overlays", type=Path, help="folder with STAGE.yaml over small.yaml")
    made.add_argument("--autoattack", type=int, default=32, help="its images, 0 leaves it out")
    made.add_argument("--jobs", type=int, help="runs side by side (cores, or 1 with a GPU)")
    made.add_argument("--no-run", action="store_true", help="only sum up what is there")
    made.add_argument("--write-docs", action="store_true", help="write docs/study_DATA.md and .png")
    made.add_argument("--docs", type=Path, default=Path("docs"), help="where to write them")
    return made


def main(args: Sequence[str] | None = None) -> None:
    """Runs the study and writes what it found.

    Raises:
        UserError: if an argument or a run folder is wrong.
        MissingInputError: if an input is missing.
    """
    given = parser().parse_args(args)
    rows = chosen_rows(given.rows)
    if given.seeds < 1:
        raise UserError(f"--seeds {given.seeds}: give at least 1")
    if given.overlays is not None and not given.overlays.is_dir():
        raise MissingInputError(f"--overlays {given.overlays} is no folder")
    if given.labels is None and given.unfiltered is not None:
        raise UserError("--unfiltered needs --labels, made by the same segmenter")
    needs_unfiltered = not all(row.filtered for row in rows)
    if given.labels is not None and given.unfiltered is None and needs_unfiltered:
        raise UserError(
            "--labels also needs --unfiltered, labels of the same segmenter without the category "
            "filter, or --rows without without_filter"
        )
    data = find_data(given.data, given.out)
    folder = given.out / data.name
    commands = StudyCommands(
        data,
        folder,
        given.overlays,
        given.labels or folder / "stage2_pseudolabels",
        given.unfiltered or folder / "stage2_unfiltered",
        given.autoattack,
    )
    console = Console()
    failures: list[str] = []
    if not given.no_run:
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        jobs = given.jobs or (1 if torch.cuda.is_available() else cores)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        with Processes(folder, max(1, cores // jobs)) as processes:
            study = Study(commands, rows, given.seeds, processes, jobs, console)
            try:
                study.make_labels(given.labels)
            except StepFailed as failure:
                raise UserError(str(failure)) from None
            failures = study.run()
    results = write_results(commands, rows, given.seeds)
    console.print(f"results: {folder / 'results.csv'}")
    if given.write_docs:
        given_arguments = sys.argv[1:] if args is None else args
        command = shlex.join(["python", "-m", "pipeline.study", *given_arguments])
        page = given.docs / f"study_{data.name}.md"
        draw_study(results, rows, page.with_suffix(".png"))
        write_document(page, data.name, command, results, rows)
        console.print(f"page: {page}")
    if failures:
        raise UserError(f"{len(failures)} runs failed, such as {failures[0]}")


if __name__ == "__main__":
    with error_exit(message=one_line, stopped="stopped; the same command goes on"):
        main()
