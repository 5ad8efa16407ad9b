"""Which recipe makes the best part segmenter of photographs in a given time of a processor core.

    python benchmarks/segmenter_recipes.py --data FOLDER --out runs/recipes --minutes 8

FOLDER has `imagenet/` and `pinpp/`. Every variant of `configs/stage1_segmenter/lite0.yaml` gets the
same minutes of one core (its own time, so that what else runs hardly matters): first its steps are
timed, then it trains as many as fit. A quarter of each category's annotated train images is held
out to choose by, so the images that a study tests on are never looked at. What is done is not done
again.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations, write_split
from pipeline.drawing.markdown_table import markdown_table
from pipeline.runs.metrics import Metrics

DETECTOR, DATA = "--model.init_args.detector", "--data.init_args"
OPTIMIZER = "--model.init_args.optimizer.init_args"
LARGE = (
    f"{DETECTOR}.min_size=256",
    f"{DETECTOR}.max_size=320",
    f"{DETECTOR}.anchor_sizes=[12,24,48,96,192]",
)
MIDDLE = (f"{DETECTOR}.min_size=192", f"{DETECTOR}.max_size=288")
VARIANTS: dict[str, tuple[str, ...]] = {
    "lite0.yaml": (),
    "four RoIAlign points a bin, batches of any shape": (
        f"{DETECTOR}.roi_samples=2",
        f"{DATA}.aspect_ratio_grouping=false",
    ),
    "padded on the last side, as TensorFlow does": ("--model.init_args.backbone_args=null",),
    "from scratch": ("--model.init_args.weights=null",),
    "stem and two stages frozen": ("--model.init_args.frozen_stages=2",),
    "shorter side 192": MIDDLE,
    "shorter side 256": LARGE,
    "anchors from 4 pixels on": (f"{DETECTOR}.anchor_sizes=[4,8,16,32,64]",),
    "rate 4e-4": (f"{OPTIMIZER}.lr=0.0004",),
    "rate 1.6e-3": (f"{OPTIMIZER}.lr=0.0016",),
    "layer decay 0.9": ("--model.init_args.layer_decay=0.9",),
    "flip alone": (f"{DATA}.scale=[1,1]", f"{DATA}.photometric=0"),
    "batch 4": (f"{DATA}.batch_size=4", f"{OPTIMIZER}.lr=0.0004"),
}
SPLIT = "split.json"
TIMED = 6  # steps, after as many that are not
FIGURES = ("segm_AP50", "segm_AP50_filtered", "semantic_mIoU_filtered")
HEADER = ("recipe", "steps", "core minutes in all", "AP50", "AP50, filter", "mIoU, filter")


def hold_out(data: Path, split: Path) -> None:
    """Writes a split file with a quarter of every category's annotated train images as val."""
    vocabulary = PartVocabulary.from_pinpp(data / "pinpp", data / "imagenet")
    annotations = read_annotations(data / "pinpp", vocabulary, data / "imagenet" / "train")
    by_class = defaultdict(list)
    for record in annotations:
        by_class[record.label].append(record)
    drawn = random.Random(0)
    held = [r for records in by_class.values() for r in drawn.sample(records, len(records) // 4)]
    keys = {record.key for record in held}
    write_split(split, [r for r in annotations if r.key not in keys], held)


def train(args: argparse.Namespace, run: Path, steps: int, overrides: Sequence[str]) -> float:
    """Trains a variant, and returns the seconds of one core that it took, workers included."""
    command = [sys.executable, "-W", "ignore", "-m", "pipeline", "stage1_segmenter", "fit"]
    command += ["-c=lite0", f"{DATA}.imagenet={args.data / 'imagenet'}"]
    command += [f"{DATA}.pinpp={args.data / 'pinpp'}", f"{DATA}.split={args.out / SPLIT}"]
    command += [f"--trainer.max_steps={steps}", f"--trainer.val_check_interval={steps}"]
    # averaged over the last tenth or so of the steps
    command += [f"--ema_decay={max(0.9, 1 - 10 / steps)}", *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with run.with_suffix(".log").open("w") as log:
        call = [*command, f"--trainer.default_root_dir={run}"]
        process = subprocess.Popen(call, stdout=log, stderr=log, env=environment)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"a training failed:\n{run.with_suffix('.log').read_text()}")
    return used.ru_utime + used.ru_stime


def steps_in_time(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """How many steps of a variant fit into the minutes, by two short trainings."""
    with tempfile.TemporaryDirectory() as folder:
        numbers = TIMED, 3 * TIMED
        few, many = (train(args, Path(folder) / f"{n}", n, overrides) for n in numbers)
    return max(1, int(60 * args.minutes * 2 * TIMED / (many - few)))


def measure(args: argparse.Namespace, name: str) -> tuple[str, ...]:
    """The row of a variant, trained where that is not done yet."""
    run = args.out / name.replace(" ", "_")
    record = args.out / f"{run.name}.json"
    if not record.is_file():
        steps = steps_in_time(args, VARIANTS[name])
        seconds = train(args, run, steps, VARIANTS[name])
        metrics = Metrics.find(run)
        assert metrics is not None  # the run has ended
        about = {"steps": steps, "minutes": seconds / 60, "budget": args.minutes}
        record.write_text(json.dumps(about | metrics.values))
    row = json.loads(record.read_text())
    shown = (f"{row[figure]:.3f}" for figure in FIGURES)
    cells = (name, str(row["steps"]), f"{row['minutes']:.1f}", *shown)
    print(*cells, sep="  ", flush=True)
    return cells


def main() -> None:
    """Trains the variants and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of imagenet/ and pinpp/")
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--minutes", type=float, default=8.0, help="of a core, for training")
    parser.add_argument("--jobs", type=int, default=2, help="variants at once, one a core")
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), help="these variants")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    hold_out(args.data, args.out / SPLIT)
    with ThreadPoolExecutor(args.jobs) as pool:
        rows = list(pool.map(partial(measure, args), args.only or VARIANTS))
    print(markdown_table(HEADER, rows, numbers=len(HEADER) - 1))


if __name__ == "__main__":
    main()
