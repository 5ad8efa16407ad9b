"""The whole pipeline on PartShapes, stage by stage, with the commands that a user would run."""

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.labels.label_set import read_labels
from datamodules.part_shapes.part_shapes import render_part_shapes
from pipeline.demo_figures import show_parts, show_robustness
from pipeline.labelling.quality import FilterGain, pseudo_label_miou
from pipeline.runs.stage_commands import stage_command
from pipeline.runs.stages import EVALUATION, LABELS, MPM, SEGMENTER, Stage

UNFILTERED, VANILLA = "stage2_unfiltered", "stage3_vanilla"
MODELS = (MPM.name, VANILLA)


class Demo:
    """Chains the stages; what is complete is not run again, what was cut goes on.

    Args:
        runs: folder for the data set and all stage outputs.
    """

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.console = Console()
        self.started = time.monotonic()

    def run(self) -> None:
        """Renders the data and runs all stages, the evaluation and the report."""
        self.shapes = render_part_shapes(self.runs / "part_shapes")
        self.stages(self.command(SEGMENTER))
        unfiltered = "--model.init_args.category_filter=false"
        self.stages(
            self.command(LABELS, earlier=SEGMENTER.name),
            self.command(LABELS, unfiltered, earlier=SEGMENTER.name, name=UNFILTERED),
        )
        self.measure_labels()
        vanilla = "--model.init_args.part_loss_weight=0"
        self.stages(
            self.command(MPM, earlier=LABELS.name),
            self.command(MPM, vanilla, earlier=LABELS.name, name=VANILLA),
        )
        self.stages(
            *(
                self.command(EVALUATION, earlier=model, name=f"{EVALUATION.name}/{model}")
                for model in MODELS
            )
        )
        report = ["report", f"--runs={self.runs}"]
        report += [f"--imagenet={self.shapes / 'imagenet'}", f"--pinpp={self.shapes / 'pinpp'}"]
        self.stages(("report", report))
        self.show()

    def command(
        self, stage: Stage, *more: str, earlier: str | None = None, name: str = ""
    ) -> tuple[str, list[str]]:
        """Run folder and arguments of `python -m pipeline` for a stage with its `small.yaml`."""
        name = name or stage.name
        folders = {folder: self.shapes / folder for folder in stage.folders}
        read = self.runs / earlier if earlier else None
        return name, stage_command(stage, self.runs / name, folders, *more, earlier=read)

    def stages(self, *commands: tuple[str, list[str]]) -> None:
        """Runs commands side by side, each with its share of the cores.

        These networks are so small that two processes of one thread are much faster than one of
        two. The first command prints here, the others to a log file. Stops with the exit status
        of a command that fails.
        """
        names = [name for name, _ in commands]
        title = ", ".join(names)
        self.console.rule(f"{title}  ({time.monotonic() - self.started:.0f} s so far)")
        threads = max(1, (os.cpu_count() or 1) // len(commands))
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        logs = [self.runs / "logs" / f"{name.replace('/', '_')}.log" for name in names]
        logs[0].parent.mkdir(exist_ok=True)
        processes = []
        for index, (_, arguments) in enumerate(commands):
            with ExitStack() as stack:
                output = stack.enter_context(logs[index].open("w")) if index else None
                call = [sys.executable, "-W", "ignore", "-m", "pipeline", *arguments]
                processes.append(
                    subprocess.Popen(call, env=environment, stdout=output, stderr=output)
                )
        for index, process in enumerate(processes):
            if process.wait():
                if index:
                    self.console.print(logs[index].read_text())
                sys.exit(process.returncode)

    def measure_labels(self) -> None:
        """Scores the pseudo labels against the truth that was kept aside."""
        vocabulary = PartVocabulary.from_pinpp(self.shapes / "pinpp", self.shapes / "imagenet")
        truth = read_annotations(self.shapes / "truth", vocabulary)
        filtered, unfiltered = (
            pseudo_label_miou(
                read_labels(self.runs / run, vocabulary.objects), truth, vocabulary.inclusions
            )
            for run in (LABELS.name, UNFILTERED)
        )
        FilterGain(filtered, unfiltered).write(self.runs / LABELS.name)

    def show(self) -> None:
        """Prints the figures of all stages, and what they say."""
        show_parts(self.runs, self.console)
        mpm, vanilla = (self.runs / EVALUATION.name / model for model in MODELS)
        show_robustness(mpm, vanilla, self.console)
        report = self.runs / "report" / "index.html"
        self.console.print(f"{time.monotonic() - self.started:.0f} s; report: {report}")


def demo(runs: Path = Path("runs/demo")) -> None:
    """Runs the whole pipeline on PartShapes, stage by stage.

    Args:
        runs: folder for the data set and all stage outputs.
    """
    Demo(runs).run()
