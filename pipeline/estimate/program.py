"""What a training will cost: times a few of its real steps, and writes nothing."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table

from pipeline.estimate.measure import Estimate, estimate
from pipeline.runs.process_state import quiet_lightning
from pipeline.runs.stages import STAGES


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
        f"{result.hours:,.2f} hours, {result.hours / 24:,.2f} days; "
        f"{result.flops / 1e15:,.3g} PFLOP",
    )
    console.print(table)
    console.print(
        "Assumes that devices scale linearly and each has its own loading processes' cores; "
        "validation and checkpoints are not counted."
    )


def main(args: Sequence[str]) -> None:
    """Command line of `python -m pipeline estimate [--devices N] STAGE fit -c CONFIG ...`.

    Args:
        args: `estimate`, its options, and the training's own command line.
    """
    parser = ArgumentParser(
        prog="python -m pipeline estimate",
        usage="%(prog)s [--devices N] [--steps N] STAGE fit -c CONFIG ...",
    )
    parser.add_function_arguments(print_estimate, skip={"training"})
    start = next((at for at, arg in enumerate(args) if arg in STAGES), len(args))
    options = parser.parse_args(list(args[1:start]))
    print_estimate(args[start:], **options.as_dict())


def print_estimate(training: Sequence[str], devices: int | None = None, steps: int = 10) -> None:
    """Times a few real steps of a training and says what all of it will cost; writes nothing.

    Args:
        training: stage and arguments, as for `python -m pipeline`.
        devices: of the run, by default those of the configuration.
        steps: steps of each kind to time.

    Raises:
        UserError: if it is no training that can be timed, or an argument of it is wrong.
    """
    console = Console()
    with quiet_lightning(), console.status("timing the loader and some steps"):
        result = estimate(training, devices, steps)
    show(result, console)
