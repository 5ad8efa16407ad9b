"""Starts a recipe, kills it after its first step, goes on with the same command, and measures."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.full_size.recipes import STEPS, Recipe
from benchmarks.full_size.step_marks import CUT, Mark, read_marks
from datamodules.labels.pseudo_labels import finished_shards
from pipeline.runs.manifest import Manifest

PROJECT = Path(__file__).parent.parent.parent
OUTCOMES = ("went on", "began anew")  # of a recipe that came to its end
EVERY = 0.2  # seconds between two looks at a run
RESERVE = 1.0  # GB that other programs keep


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        began: seconds since the epoch.
        seconds: that it ran.
        cpu: seconds of processor time.
        peak: GB of resident memory.
        status: of its exit, negative for the signal that ended it.
        reason: why it was killed, if it was.
    """

    began: float
    seconds: float
    cpu: float
    peak: float
    status: int
    reason: str = ""


def available_gb() -> float:
    """Memory that can be had without swapping, GB (2^30 bytes)."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 2**20


def high_water_gb(process: int) -> float:
    """Most resident memory that a process has had, GB (2^30 bytes); 0 once it has ended.

    What `os.wait4` says begins with the memory of the process that started it.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("VmHWM")), 0.0)


def watch(
    arguments: Sequence[str],
    log: Path,
    stop: Callable[[], str] = str,
    minutes: float = 20.0,
    threads: int = 1,
    **variables: str,
) -> Outcome:
    """Runs Python to its end, or until there is a reason to kill it.

    Args:
        arguments: of the interpreter.
        log: file that takes what it prints, behind what is there.
        stop: a reason to kill it, if there is one.
        minutes: after which it is killed.
        threads: that it may use.
        **variables: of its environment, beside those of this process.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"} | variables
    began, started, reason, peak = time.time(), time.monotonic(), "", 0.0
    with log.open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", *arguments],
            cwd=PROJECT,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    while True:
        peak = max(peak, high_water_gb(process.pid))
        ended, status, used = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        if not reason:
            reason = stop()
            if available_gb() < RESERVE:
                reason = f"stopped, as less than {RESERVE:g} GB of memory were left"
            if time.monotonic() - started > 60 * minutes:
                reason = f"stopped after {minutes:g} minutes"
            if reason:
                os.killpg(process.pid, signal.SIGKILL)
        time.sleep(EVERY)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Outcome(
        began,
        time.monotonic() - started,
        used.ru_utime + used.ru_stime,
        peak,
        process.returncode,
        reason,
    )


def refusal(recipe: Recipe, runs: Path) -> str:
    """Why a recipe cannot be begun now; empty if it can."""
    if (free := available_gb()) < recipe.memory + RESERVE:
        return f"not run: needs about {recipe.memory:g} GB of memory, {free:.0f} were free"
    if (space := shutil.disk_usage(runs).free / 2**30) < recipe.disk + 1:
        return f"not run: needs about {recipe.disk:g} GB of disk, {space:.0f} were free"
    if recipe.segmenter and not (runs / recipe.segmenter / "checkpoints/best.ckpt").is_file():
        return f"not run: needs {recipe.segmenter} first"
    return ""


def step_times(marks: Sequence[Mark]) -> list[tuple[float, float]]:
    """Seconds of the clock and of processor time of each whole step."""
    pairs = [pair for pair in pairwise(marks) if pair[0].event == "begins"]
    return [(b.wall - a.wall, b.cpu - a.cpu) for a, b in pairs if b.event == "ends"]


def cut_and_go_on(
    recipe: Recipe, data: Path, runs: Path, run: Path, minutes: float = 20.0, threads: int = 1
) -> dict[str, Any]:
    """Two steps of a recipe, killed in the second and gone on with by the same command.

    Stage 2, whose end would be far off, is killed once more after its second shard.

    Args:
        recipe: what to start.
        data: what `make_data` made.
        runs: see `Recipe.command`.
        run: run folder, which must not exist.
        minutes: after which either command is given up.
        threads: that it may use.

    Returns:
        The row of the table; `state` is one of `OUTCOMES`, or what went wrong.
    """
    run.mkdir(parents=True)
    log, command = run / "log.txt", ["-m", "pipeline", *recipe.command(data, runs, run)]

    kept: dict[Path, int] = {}

    def shard_more() -> str:
        labels = not recipe.stage.trains
        return "cut" if labels and len(finished_shards(run)) > len(kept) else ""

    first = watch(command, log, shard_more, minutes, threads, **{CUT: "1"})
    cut = read_marks(run)
    if first.reason != "cut" and (first.reason or len(cut) < 3):  # begins, ends, begins
        return {"state": first.reason or f"failed with status {first.status}: see log.txt"}
    kept |= {file: file.stat().st_mtime_ns for file in finished_shards(run)}
    second = watch(command, log, shard_more, minutes, threads)
    after = read_marks(run)[len(cut) :]
    times = [*step_times(cut), *step_times(after)]
    row: dict[str, Any] = {
        "parameters": cut[0].parameters,
        "batch": recipe.batch,
        "start_seconds": [cut[0].wall - first.began, *(m.wall - second.began for m in after[:1])],
        "step_seconds": [wall for wall, _ in times],
        "step_cpu_seconds": [cpu for _, cpu in times],
        "peak_gb": max(first.peak, second.peak),
        "seconds": first.seconds + second.seconds,
    }
    if second.status and second.reason != "cut":
        return row | {"state": second.reason or f"failed with status {second.status}"}
    if recipe.stage.trains:
        manifest = Manifest.find(run)
        good = trained_on(cut, after, recipe.updates)
        good = good and manifest is not None and manifest.is_complete
    else:
        good = bool(after) and after[0].step == len(kept)
        good = good and all(file.stat().st_mtime_ns == time for file, time in kept.items())
    return row | {"state": OUTCOMES[0] if good else OUTCOMES[1]}


def trained_on(cut: Sequence[Mark], after: Sequence[Mark], updates: int) -> bool:
    """Whether a training that was cut after one batch took the second, and no other.

    Args:
        cut: marks of the run that was killed.
        after: marks of the run that went on.
        updates: optimiser steps of a batch.
    """
    done = [mark.step for mark in cut if mark.event == "ends"]
    return done == [updates] and [(mark.event, mark.step) for mark in after] == [
        ("begins", updates),
        ("ends", STEPS * updates),
    ]
