"""The whole pipeline on PartShapes, stage by stage, with the commands that a user would run."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from datamodules.part_shapes import render_part_shapes
from datamodules.part_vocabulary import PartVocabulary
from datamodules.pinpp import read_annotations
from datamodules.pseudo_labels import read_labels
from pipeline.label_quality import pseudo_label_miou
from pipeline.stage_outputs import write_json

CONFIGS = Path(__file__).parent.parent / "configs"
MODELS = {"stage3_mpm": "MPM", "stage3_vanilla": "vanilla AT"}


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
        self.stage("stage1_segmenter", "fit")
        segmenter = f"--model.init_args.segmenter={self.runs / 'stage1_segmenter'}"
        self.stage("stage2_pseudolabels", "predict", segmenter)
        self.stage(
            "stage2_pseudolabels",
            "predict",
            segmenter,
            "--model.init_args.category_filter=false",
            name="stage2_unfiltered",
        )
        self.measure_labels()
        labels = f"--data.init_args.labels={self.runs / 'stage2_pseudolabels'}"
        self.stage("stage3_mpm", "fit", labels)
        no_parts = "--model.init_args.part_loss_weight=0"
        self.stage("stage3_mpm", "fit", labels, no_parts, name="stage3_vanilla")
        for model in MODELS:
            self.stage(
                "evaluate",
                "test",
                f"--model.init_args.model={self.runs / model}",
                name=f"evaluate/{model}",
            )
        self.call(
            "pipeline.report",
            f"--runs={self.runs}",
            f"--imagenet={self.shapes / 'imagenet'}",
            f"--pinpp={self.shapes / 'pinpp'}",
        )
        self.show()

    def stage(self, stage: str, subcommand: str, *args: str, name: str = "") -> None:
        """Runs one stage with its `small.yaml` in a process of its own."""
        self.console.rule(f"{name or stage}  ({time.monotonic() - self.started:.0f} s so far)")
        self.call(
            "pipeline",
            stage,
            subcommand,
            "-c",
            str(CONFIGS / stage / "small.yaml"),
            f"--data.init_args.imagenet={self.shapes / 'imagenet'}",
            f"--data.init_args.pinpp={self.shapes / 'pinpp'}",
            f"--trainer.default_root_dir={self.runs / (name or stage)}",
            *args,
        )

    def call(self, module: str, *args: str) -> None:
        """Runs a module as a command and stops with its exit status if it fails."""
        status = subprocess.run([sys.executable, "-m", module, *args]).returncode
        if status:
            sys.exit(status)

    def measure_labels(self) -> None:
        """Scores the pseudo labels against the truth that was kept aside."""
        vocabulary = PartVocabulary.from_pinpp(self.shapes / "pinpp", self.shapes / "imagenet")
        truth = read_annotations(self.shapes / "truth", vocabulary)
        quality = {
            name: pseudo_label_miou(read_labels(self.runs / run), truth, vocabulary.inclusions)
            for name, run in (
                ("miou_filtered", "stage2_pseudolabels"),
                ("miou_unfiltered", "stage2_unfiltered"),
            )
        }
        write_json(self.runs / "stage2_pseudolabels" / "quality.json", quality)

    def show(self) -> None:
        """Prints the figures of all stages."""
        segmenter = json.loads((self.runs / "stage1_segmenter" / "metrics.json").read_text())
        quality = json.loads((self.runs / "stage2_pseudolabels" / "quality.json").read_text())
        parts = Table("", "without filter", "with filter", title="Parts on PartShapes")
        for title, key in (("segmenter AP", "segm_AP"), ("segmenter AP50", "segm_AP50")):
            parts.add_row(title, f"{segmenter[key]:.3f}", f"{segmenter[f'{key}_filtered']:.3f}")
        values = (f"{quality[key]:.3f}" for key in ("miou_unfiltered", "miou_filtered"))
        parts.add_row("pseudo-label mIoU", *values)
        self.console.print(parts)
        robustness = Table("", *MODELS.values(), title="Accuracy in % [95 % interval], l_inf 4/255")
        rows: dict[str, list[str]] = {}
        for model in MODELS:
            summary = json.loads((self.runs / "evaluate" / model / "summary.json").read_text())
            for threat in summary["threats"]:
                low, high = (100 * bound for bound in threat["ci95"])
                rows.setdefault(f"{threat['name']}, {threat['n']} images", []).append(
                    f"{100 * threat['accuracy']:.1f} [{low:.0f}, {high:.0f}]"
                )
        for title, cells in rows.items():
            robustness.add_row(title, *cells)
        self.console.print(robustness)
        report = self.runs / "report" / "index.html"
        self.console.print(f"{time.monotonic() - self.started:.0f} s; report: {report}")


def main() -> None:
    """Command line: `python -m pipeline.demo --runs runs/demo`."""
    parser = argparse.ArgumentParser(prog="pipeline.demo", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/demo"))
    Demo(parser.parse_args().runs).run()


if __name__ == "__main__":
    main()
