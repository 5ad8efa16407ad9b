"""Command line of `python -m benchmarks.gpu_check`."""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial

from rich.console import Console

from benchmarks import gpu_check
from benchmarks.gpu_check.entries import ENTRIES
from benchmarks.gpu_check.machine import Machine
from benchmarks.gpu_check.runner import BUDGET, run
from benchmarks.gpu_check.scale import FULL, SMALL, Setting
from benchmarks.gpu_check.tables import markdown, summary
from pipeline.runs.process_state import quiet_lightning


def main(args: Sequence[str] | None = None) -> int:
    """Runs checks and ratios, prints them as they come and, last, all as one line of JSON."""
    names = [entry.name for entry in ENTRIES]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check", description=gpu_check.__doc__
    )
    parser.add_argument("--only", nargs="+", choices=names, help="of these alone")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for everything")
    parser.add_argument("--markdown", action="store_true", help="also the table for the README")
    given = parser.parse_args(args)
    machine = Machine.of_this()
    setting = Setting(machine.device, FULL if machine.device == "cuda" else SMALL)
    # messages of errors may hold brackets, which are no markup
    say = partial(Console(highlight=False).print, markup=False, soft_wrap=True)
    say(f"{machine.name}, torch {machine.torch}; {setting.scale.name}")
    chosen = [entry for entry in ENTRIES if entry.name in (given.only or names)]
    if setting.device == "cpu" and not given.only:
        chosen = [entry for entry in chosen if not entry.compiles]
    with quiet_lightning():
        report = run(chosen, setting, given.budget, say)
    if given.markdown:
        print(markdown(report, machine))
    print(json.dumps(summary(report, machine), allow_nan=False))
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
