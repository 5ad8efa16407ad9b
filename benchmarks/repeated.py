"""Runs benchmarks several times and gives minimum, median and maximum of each of their figures.

    python -m benchmarks.repeated NAME... [--times 3] [--out FILE] [--quiet 0.1]

Each run is a process of its own, with the benchmark's defaults; in rounds, so that a change of the
machine meets all of them. `FILE` gets a line of JSON per run: the same command again goes on where
it was stopped. How many cores other processes kept busy meanwhile is counted: runs with more than
`--quiet` are shown apart, as the machine was not the benchmark's alone.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.drawing.markdown_table import markdown_table

FOLDER = Path(__file__).parent
NAMES = (
    "adversarial_step",
    "autoattack_batches",
    "autoattack_overhead",
    "corruptions",
    "data_path",
    "fast_recipe",
    "finite_checks",
    "label_dry_run",
    "part_loss",
    "pseudo_label_store",
    "segmenter_inference",
    "worker_memory",
)
"""Those whose last line is an object of figures."""


def busy_seconds() -> float:
    """Processor seconds that all processes of the machine have taken (Linux)."""
    user, nice, system, _, _, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Processor seconds of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def run(name: str) -> dict[str, Any]:
    """One run of a benchmark.

    Returns:
        `seconds` it took, `others`, the cores that other processes kept busy meanwhile, and its
        `figures`.

    Raises:
        SystemExit: if it fails, or its last line is no JSON object.
    """
    began, busy, own = time.perf_counter(), busy_seconds(), own_seconds()
    command = [sys.executable, str(FOLDER / f"{name}.py")]
    done = subprocess.run(command, cwd=FOLDER.parent, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - began
    others = max(0.0, busy_seconds() - busy - (own_seconds() - own)) / seconds
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        found = None
    if done.returncode or not isinstance(found, dict):
        sys.exit(f"{done.stdout}\n{' '.join(command)} failed with status {done.returncode}")
    return {"benchmark": name, "seconds": seconds, "others": others, "figures": found}


def flat(figures: Mapping[str, Any], prefix: str = "") -> dict[str, float | bool]:
    """Figures below their keys joined by spaces, without texts and lists."""
    found: dict[str, float | bool] = {}
    for key, value in figures.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key} ")
        elif isinstance(value, bool | int | float):
            found[prefix + key] = value
    return found


def table(runs: Sequence[Mapping[str, Any]], quiet: float) -> str:
    """Markdown with a row for each figure, quiet runs and others apart.

    Args:
        runs: as `run` gives them.
        quiet: cores that others may have kept busy.
    """
    rows = []
    for name in dict.fromkeys(run["benchmark"] for run in runs):
        for calm in (True, False):
            some = [r for r in runs if r["benchmark"] == name and (r["others"] <= quiet) == calm]
            title = name if calm else f"{name}, beside other work"
            rows += [(title, *row) for row in _spread([flat(run["figures"]) for run in some])]
    return markdown_table(("benchmark", "figure", "runs", "min", "median", "max"), rows, numbers=4)


def _spread(found: Sequence[Mapping[str, float | bool]]) -> Iterable[tuple[str, ...]]:
    for key in found[0] if found else ():
        values = [figures[key] for figures in found if key in figures]
        if isinstance(values[0], bool):
            yield key, str(len(values)), *[str(all(values)).lower()] * 3
        else:
            three = min(values), statistics.median(values), max(values)
            yield key, str(len(values)), *(f"{value:.4g}" for value in three)


def main(given: Sequence[str] | None = None) -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--out", type=Path, help="file of the runs, to go on with")
    parser.add_argument("--quiet", type=float, default=0.1, help="cores that others may use")
    args = parser.parse_args(given)
    runs = []
    if args.out and args.out.is_file():
        runs = [json.loads(line) for line in args.out.read_text().splitlines()]
    for turn in range(args.times):
        for name in args.names:
            if sum(run["benchmark"] == name for run in runs) > turn:
                continue
            found = run(name)
            runs.append(found)
            if args.out:
                with args.out.open("a") as file:
                    file.write(json.dumps(found) + "\n")
            about = f"{found['seconds']:.0f} s, others {found['others']:.2f} cores"
            print(f"{name}, {turn + 1} of {args.times}: {about}", file=sys.stderr, flush=True)
    print(table(runs, args.quiet))


if __name__ == "__main__":
    main()
