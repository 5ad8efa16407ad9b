"""The small-scale study of Tables 2, 5 and 6: all rows over several seeds, resumable over days."""

import os
import shlex
import signal
import sys
from pathlib import Path

import torch
from rich.console import Console

from datamodules.files.errors import MissingInputError, UserError
from pipeline.runs.stages import LABELS, STAGES
from pipeline.study.commands import StudyCommands, find_data
from pipeline.study.document import write_document
from pipeline.study.folds import make_folds
from pipeline.study.outcomes import read_outcomes, together, write_outcomes
from pipeline.study.plot import draw_study
from pipeline.study.processes import Processes, StepFailed
from pipeline.study.results import write_results
from pipeline.study.rows import chosen_rows
from pipeline.study.study import Study


def main(
    data: str = "part_shapes",
    out: Path = Path("runs/study"),
    seeds: int = 3,
    folds: int | None = None,
    test_images: int | None = None,
    recipe: str = "small",
    rows: str | list[str] | None = None,
    labels: Path | None = None,
    unfiltered: Path | None = None,
    overlays: Path | list[Path] | None = None,
    autoattack: int = 32,
    jobs: int | None = None,
    run: bool = True,
    write_docs: bool = False,
    docs: Path = Path("docs"),
    more: Path | None = None,
) -> None:
    """Runs the small-scale study of Tables 2, 5 and 6 and writes its results.

    Args:
        data: part_shapes, or the folder of a data set.
        out: folder of all studies.
        seeds: trainings of each row, with folds for each of them.
        folds: of a cross-validation over all images without part annotations; None trains on
            train and tests on val.
        test_images: val images of each kind of object that part_shapes renders.
        recipe: name of the stages' configurations, such as lite0; small where a stage has none.
        rows: some rows only.
        labels: run folder of stage 2, instead of making one.
        unfiltered: the same without the category filter.
        overlays: folder with STAGE.yaml over the recipe, or several, the later over the earlier.
        autoattack: images that AutoAttack measures; 0 leaves it out.
        jobs: runs side by side, by default one a core, or 1 with a GPU.
        run: false only sums up what is there.
        write_docs: write study_DATA.md, .png and .parquet, the outcome of every image.
        docs: folder to write them to.
        more: such a .parquet of an earlier study of the same recipe, whose runs are not made again
            but summed up with this one's.

    Raises:
        UserError: if an argument or a run folder is wrong, or runs failed.
        MissingInputError: if an input is missing.
    """
    chosen = chosen_rows([rows] if isinstance(rows, str) else rows)
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: give at least 1")
    laid_over = [overlays] if isinstance(overlays, Path) else overlays or []
    for given in laid_over:
        if not given.is_dir():
            raise MissingInputError(f"--overlays {given} is no folder")
    if labels is None and unfiltered is not None:
        raise UserError("--unfiltered needs --labels, made by the same segmenter")
    needs_unfiltered = not all(row.filtered for row in chosen)
    if labels is not None and unfiltered is None and needs_unfiltered:
        raise UserError(
            "--labels also needs --unfiltered, labels of the same segmenter without the category "
            "filter, or --rows without without_filter"
        )
    if not any((stage.configs / f"{recipe}.yaml").is_file() for stage in STAGES.values()):
        raise UserError(f"--recipe {recipe}: no stage has a configuration of that name")
    found = find_data(data, out, test_images)
    folder = out / found.name
    commands = StudyCommands(
        found,
        folder,
        recipe,
        tuple(laid_over),
        labels or folder / LABELS.name,
        unfiltered or folder / "stage2_unfiltered",
        autoattack,
        None if folds is None else make_folds(found.imagenet, found.pinpp, folder / "folds", folds),
    )
    recipes = commands.recipes(chosen)
    earlier = [] if more is None else read_outcomes(more, recipes, commands.tested_on())
    console = Console()
    failures: list[str] = []
    if run:
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        jobs = jobs or (1 if torch.cuda.is_available() else cores)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        with Processes(folder, max(1, cores // jobs)) as processes:
            known = {(result.row, result.seed, result.fold) for result in earlier}
            study = Study(commands, chosen, seeds, processes, jobs, console, known)
            try:
                study.make_labels(labels)
            except StepFailed as failure:
                raise UserError(str(failure)) from None
            failures = study.run()
    results = write_results(commands, chosen, seeds)
    console.print(f"results: {folder / 'results.csv'}")
    if write_docs:
        arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--run=")]
        command = shlex.join(["python", "-m", "pipeline", *arguments])
        page = docs / f"study_{found.name}.md"
        results = together(results, earlier)
        write_outcomes(page.with_suffix(".parquet"), results, recipes)
        draw_study(results, chosen, page.with_suffix(".png"))
        write_document(page, found.name, command, results, chosen)
        console.print(f"page: {page}")
    if failures:
        raise UserError(f"{len(failures)} runs failed, such as {failures[0]}")
