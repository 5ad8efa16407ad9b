"""Runs the study: labels once, then every row of one seed and fold, of the next, and so on."""

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
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

from pipeline.runs.manifest import require_complete
from pipeline.runs.stages import LABELS
from pipeline.study.commands import StudyCommands, Training
from pipeline.study.processes import Processes, StepFailed
from pipeline.study.results import THREATS, Result, collect, write_results
from pipeline.study.rows import Row

SPEED_OVER_SECONDS = 1e6  # of the bar's time left: over the whole study, as runs take minutes


class Study:
    """Trainings and evaluations of some rows; what is done is not done again, what was cut goes on.

    Args:
        commands: of the study.
        rows: rows to run.
        seeds: number of seeds, from 0 on.
        processes: runs the commands.
        jobs: processes side by side.
        console: for what is done.
        known: row, seed and fold of runs whose outcomes are there from an earlier study.
    """

    def __init__(
        self,
        commands: StudyCommands,
        rows: Sequence[Row],
        seeds: int,
        processes: Processes,
        jobs: int,
        console: Console,
        known: Collection[tuple[str, int, int | None]] = (),
    ) -> None:
        self.commands = commands
        self.rows = rows
        self.seeds = seeds
        self.processes = processes
        self.jobs = jobs
        self.console = console
        self.known = known

    def make_labels(self, given: Path | None) -> None:
        """Trains the segmenter and labels all images, unless the labels are given.

        Raises:
            StepFailed: if a stage ended with an error.
            UserError: if given labels are not complete.
            MissingInputError: if there are none.
        """
        kinds = sorted({row.filtered for row in self.rows}, reverse=True)
        if given is not None:
            for filtered in kinds:
                run = self.commands.filtered if filtered else self.commands.unfiltered
                require_complete(run, LABELS.target)
            return
        with self.console.status("stage 1: part segmenter"):
            self.processes.run(self.commands.segmenter())
        with (
            self.console.status("stage 2: pseudo labels"),
            ThreadPoolExecutor(min(self.jobs, len(kinds))) as pool,
        ):
            steps = [self.commands.labels(filtered=filtered) for filtered in kinds]
            for _ in pool.map(self.processes.run, steps):
                pass

    def run(self) -> list[str]:
        """Runs all rows over all seeds.

        Returns:
            What failed, one line each.
        """
        failures = []
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        clocks = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        bar = Progress(
            *columns, *clocks, console=self.console, speed_estimate_period=SPEED_OVER_SECONDS
        )
        runs = self.commands.trainings(self.rows, self.seeds)
        left = [training for training in runs if not self._is_done(training)]
        if len(left) < len(runs):
            self.console.print(f"{len(runs) - len(left)} of {len(runs)} runs were done before")
        pool = ThreadPoolExecutor(self.jobs)
        try:
            with bar:
                task = bar.add_task("runs", total=len(left))
                futures = {pool.submit(self._run, training): training for training in left}
                for future in as_completed(futures):
                    try:
                        future.result()
                        result = collect(self.commands, futures[future])
                        bar.console.print(describe(result), soft_wrap=True)
                    except StepFailed as failure:
                        failures.append(str(failure))
                        bar.console.print(f"failed: {failure}", markup=False, soft_wrap=True)
                    write_results(self.commands, self.rows, self.seeds)
                    bar.advance(task)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            self.processes.stop()
        return failures

    def _is_done(self, training: Training) -> bool:
        if (training.row.name, training.seed, training.fold) in self.known:
            return True
        marks = self.commands.marks
        if not self.commands.training(training).is_done(marks):
            return False
        return self.commands.evaluation(training).is_done(marks)

    def _run(self, training: Training) -> None:
        self.processes.run(self.commands.training(training))
        self.processes.run(self.commands.evaluation(training))


def describe(result: Result) -> str:
    """One line of a run's accuracies."""
    accuracies = ", ".join(
        f"{THREATS[name]} {100 * value:.1f} %" for name, value in result.accuracies.items()
    )
    return f"{result.name}, {result.title}: {accuracies}"
