"""What a training will cost: times a few of its real steps, and writes nothing.

python -m pipeline.estimate [--devices 8] STAGE fit -c CONFIG ...
"""

import argparse
import logging
import warnings
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from pipeline.__main__ import one_line
from pipeline.estimate.measure import Estimate, estimate
from pipeline.runs.error_exit import error_exit


def show(result: Estimate, console: Console) -> None:
    """Prints an estimate as a table."""
    table = Table(show_header=False)
    table.add_row("timed on", f"1 x {result.device}, {result.precision}")
    workers = f"{result.workers} workers a device" if result.workers else "no worker process"
    table.add_row("loader", f"{result.loader_speed:,.0f} images/s, {workers}")
    for phase in result.phases:
        speed = result.batch_size / phase.step_seconds
        limit = "the loader" if result.loader_speed < speed else "the step"
        table.add_row(
            f"{phase.name} step",
            f"{speed:,.0f} images/s, {1000 * phase.step_seconds:,.0f} ms a batch of "
            f"{result.batch_size}; {limit} limits",
        )
        share = "unknown"
        if result.peak:
            share = f"{phase.flops * speed / 1e12 / result.peak:.1%} of {result.peak:,.0f} TFLOP/s"
        table.add_row("", f"{phase.flops / 1e9:,.2f} GFLOP an image; share of the peak: {share}")
    table.add_row("GPU memory", f"{result.memory / 2**30:.1f} GiB" if result.memory else "no GPU")
    table.add_row(
        "whole run",
        f"{result.images * result.devices:,.0f} images on {result.devices} devices: "
        f"{result.hours:,.2f} hours, {result.hours / 24:,.2f} days",
    )
    console.print(table)
    console.print(
        "Assumes that devices scale linearly and each has its own loading processes' cores; "
        "validation and checkpoints are not counted."
    )


def main(args: Sequence[str] | None = None) -> None:
    """Command line: `python -m pipeline.estimate [--devices N] STAGE fit -c CONFIG ...`."""
    parser = argparse.ArgumentParser(prog="pipeline.estimate", description=__doc__)
    parser.add_argument("--devices", type=int, help="of the run (those of the configuration)")
    parser.add_argument("--steps", type=int, default=10, help="steps of each kind to time")
    parser.add_argument("stage", nargs=argparse.REMAINDER, help="as for python -m pipeline")
    given = parser.parse_args(args)
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    console = Console()
    with console.status("timing the loader and some steps"):
        result = estimate(given.stage, given.devices, given.steps)
    show(result, console)


if __name__ == "__main__":
    with error_exit(message=one_line):
        main()
