"""The whole pipeline on a small data set, stage by stage, with commands that a user would run."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.labels.label_set import read_labels
from datamodules.part_shapes.part_shapes import render_part_shapes
from pipeline.demo_figures import over_trainings, show_parts, show_robustness
from pipeline.labelling.quality import LabelQuality, pseudo_label_miou
from pipeline.runs.stage_commands import stage_command
from pipeline.runs.stages import EVALUATION, LABELS, MPM, SEGMENTER, Stage
from pipeline.study.commands import StudyCommands, StudyData, find_data
from pipeline.study.rows import chosen_rows

VANILLA = "stage3_vanilla"
MODELS = (MPM.name, VANILLA)
SHAPES = "part_shapes"
DOCS = Path(__file__).parent.parent / "docs"
TESTED = 100  # val images of each kind of object: 1,000 decide differences of two points or three
# Rendered objects and networks from scratch; or photographs and networks from real weights.
SMALL = dict.fromkeys((SEGMENTER, LABELS, MPM, EVALUATION), "small")
PHOTOGRAPHS = {SEGMENTER: "lite0", LABELS: "small", MPM: "lite0", EVALUATION: "lite0"}


class Demo:
    """Chains the stages; what is complete is not run again, what was cut goes on.

    Args:
        runs: folder for all stage outputs.
        data: the images and annotations.
        configs: name of a configuration of each stage.
    """

    def __init__(self, runs: Path, data: StudyData, configs: Mapping[Stage, str]) -> None:
        self.runs = runs
        self.data = data
        self.configs = configs
        self.folders = {"imagenet": data.imagenet, "pinpp": data.pinpp}
        self.console = Console()
        self.started = time.monotonic()

    def run(self) -> None:
        """Runs all stages, the evaluation and the report."""
        val = self.data.val_parts
        more = [] if val is None else [f"--data.init_args.pinpp_val={val}"]
        self.stages(self.command(SEGMENTER, *more))
        self.stages(self.command(LABELS, earlier=SEGMENTER.name))
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
        report += [f"--{name}={folder}" for name, folder in self.folders.items()]
        annotated = self.data.pinpp.parent / "val_parts"
        report += [f"--pinpp_val={annotated}"] if annotated.is_dir() else []
        self.stages(("report", report))
        self.show()

    def command(
        self, stage: Stage, *more: str, earlier: str | None = None, name: str = ""
    ) -> tuple[str, list[str]]:
        """Run folder and arguments of `python -m pipeline` for a stage."""
        name = name or stage.name
        folders = {folder: self.folders[folder] for folder in stage.folders}
        read = self.runs / earlier if earlier else None
        configs = (self.configs[stage],)
        command = stage_command(
            stage, self.runs / name, folders, *more, configs=configs, earlier=read
        )
        return name, command

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
        logs[0].parent.mkdir(parents=True, exist_ok=True)
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
        """Scores the pseudo labels against the truth that was kept aside, where there is one."""
        kept = self.data.pinpp.parent / "truth"
        if not kept.is_dir():
            return
        vocabulary = PartVocabulary.from_pinpp(self.data.pinpp, self.data.imagenet)
        truth = read_annotations(kept, vocabulary)
        labels = self.runs / LABELS.name
        rows = read_labels(labels, vocabulary.objects)
        LabelQuality(pseudo_label_miou(rows, truth, vocabulary.inclusions)).write(labels)

    def trainings(self) -> str:
        """What the study of the demo's recipe knows of more trainings than one, in a sentence."""
        labels = self.runs / LABELS.name
        recipe = self.configs[MPM]
        study = StudyCommands(self.data, self.runs, recipe, (), labels, labels, autoattack=0)
        recipes = study.recipes(chosen_rows(["mpm", "vanilla"]))
        return over_trainings(DOCS / f"study_{self.data.name}.parquet", recipes)

    def show(self) -> None:
        """Prints the figures of all stages, and what they say."""
        show_parts(self.runs, self.console)
        mpm, vanilla = (self.runs / EVALUATION.name / model for model in MODELS)
        show_robustness(mpm, vanilla, self.trainings(), self.console)
        report = self.runs / "report" / "index.html"
        self.console.print(f"{time.monotonic() - self.started:.0f} s; report: {report}")


def demo(runs: Path = Path("runs/demo"), data: Path | None = None) -> None:
    """Runs the whole pipeline stage by stage: on rendered objects, or on photographs.

    Args:
        runs: folder for all stage outputs, and for the rendered objects.
        data: folder of photographs with imagenet/, pinpp/ and perhaps val_parts/; networks start
            from real weights (the extra `pretrained`).
    """
    if data is not None:
        Demo(runs, find_data(str(data), runs), PHOTOGRAPHS).run()
        return
    shapes = render_part_shapes(runs / SHAPES, val_per_object=TESTED, workers=os.cpu_count() or 1)
    rendered = StudyData(SHAPES, shapes / "imagenet", shapes / "pinpp", None)
    Demo(runs, rendered, SMALL).run()
