"""Every full-size recipe takes two steps on a processor, cut after the first, and 1,000 categories.

    python -m benchmarks.full_size --out runs/full_size
    python -m benchmarks.full_size --out runs/full_size --only rock import_labels

A synthetic ImageNet of 1,000 categories and 3,308 parts is made, then each recipe is started as
`python -m pipeline` with its network, image size and losses, in batches of 1 or 2 images, from
random weights. It is killed in its second step, and the same command goes on to its end, which
includes a validation. Then the commands that look at the whole data set are timed. One process runs
at a time; what is done is not done again, and what the machine has no memory for says so.
"""

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

from benchmarks.full_size.data import CATEGORIES, PARTS, make_data
from benchmarks.full_size.recipes import RECIPES
from benchmarks.full_size.runs import OUTCOMES, cut_and_go_on, refusal
from benchmarks.full_size.starts import FIRST, STARTS, start
from pipeline.drawing.markdown_table import markdown_table

HEADER = (
    "recipe",
    "million parameters",
    "batch",
    "s to the first step",
    "s/step",
    "core s/step",
    "peak GB",
    "state",
)
START_HEADER = ("command", "seconds", "core seconds", "peak MB", "state")


def recipe_cells(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    """The cells of a recipe's row; of two figures the lesser, as other work delays."""
    if "parameters" not in row:
        return (name, *[""] * (len(HEADER) - 2), row["state"])
    starts = [seconds for seconds in row["start_seconds"] if seconds is not None]
    return (
        name,
        f"{row['parameters'] / 1e6:.1f}",
        str(row["batch"]),
        f"{min(starts):.0f}",
        f"{min(row['step_seconds']):.1f}",
        f"{min(row['step_cpu_seconds']):.1f}",
        f"{row['peak_gb']:.1f}",
        row["state"],
    )


def start_cells(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    """The cells of a command's row."""
    figures = (row["seconds"], row["cpu"], 1024 * row["peak_gb"])
    return (name, *(f"{value:.0f}" for value in figures), row["state"])


def remove_weights(run: Path) -> None:
    """Deletes the checkpoints and the exported network of a run, which fill the disk."""
    for name in ("checkpoints", "export"):
        shutil.rmtree(run / name, ignore_errors=True)


def measure_recipe(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """The row of a recipe, which is tried where no earlier call has; only outcomes are kept."""
    record, recipe = args.out / "records" / f"{name}.json", RECIPES[name]
    if record.is_file():
        return json.loads(record.read_text())
    runs, data = args.out / "runs", args.out / "data"
    if reason := refusal(recipe, runs):
        return {"state": reason}
    run = runs / name
    shutil.rmtree(run, ignore_errors=True)
    row = cut_and_go_on(recipe, data, runs, run, args.minutes, args.threads)
    if not any(RECIPES[other].segmenter == name for other in RECIPES):
        remove_weights(run)
    if recipe.segmenter:
        remove_weights(runs / recipe.segmenter)
    if row["state"] in OUTCOMES:
        record.write_text(json.dumps(row))
    return row


def measure_start(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """The row of a command, which is run where no earlier call has."""
    record = args.out / "records" / f"{name}.json"
    if record.is_file():
        return json.loads(record.read_text())
    row = start(name, args.out, args.minutes, args.threads)
    if row["state"] == "ended":
        record.write_text(json.dumps(row))
    return row


def main() -> None:
    """Makes the data, tries recipes and commands and prints the tables."""
    names = (*FIRST, *RECIPES, *(name for name in STARTS if name not in FIRST))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/full_size"))
    parser.add_argument("--images", type=int, default=10, help="annotated images of a category")
    parser.add_argument("--minutes", type=float, default=20.0, help="most of one command")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of a command")
    parser.add_argument("--only", nargs="*", choices=names, help="these recipes and commands")
    args = parser.parse_args()
    args.out = args.out.resolve()
    (args.out / "records").mkdir(parents=True, exist_ok=True)
    (args.out / "runs").mkdir(exist_ok=True)
    make_data(args.out / "data", categories=CATEGORIES, parts=PARTS, images=args.images)
    rows: dict[str, dict[str, Any]] = {}
    cells: list[tuple[str, ...]] = []
    start_rows: list[tuple[str, ...]] = []
    for name in args.only or names:
        if name in RECIPES:
            rows[name] = measure_recipe(args, name)
            cells.append(recipe_cells(name, rows[name]))
            print(*cells[-1], sep="  ", flush=True)
        else:
            rows[name] = measure_start(args, name)
            start_rows.append(start_cells(name, rows[name]))
            print(*start_rows[-1], sep="  ", flush=True)
    print(markdown_table(HEADER, cells, numbers=6))
    print(markdown_table(START_HEADER, start_rows, numbers=3))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
