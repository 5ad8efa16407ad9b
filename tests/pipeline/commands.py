"""How the tests start stages: with the small configurations and a tiny overlay."""

import os
import subprocess
import sys
from pathlib import Path

from pipeline.runs.stage_commands import stage_command
from pipeline.runs.stages import EVALUATION, LABELS, MPM, SEGMENTER, STAGES

PROJECT = Path(__file__).parent.parent.parent
CHAIN = (SEGMENTER, LABELS, MPM, EVALUATION)


def stage_args(stage: str, data: Path, runs: Path, *args: str, name: str = "") -> list[str]:
    """Arguments of `python -m pipeline` for a tiny run of a stage."""
    row = STAGES[stage]
    return stage_command(
        row,
        runs / (name or stage),
        {folder: data / folder for folder in row.folders},
        *args,
        configs=("small", PROJECT / "tests" / "configs" / f"{stage}.yaml"),
        earlier=runs / row.earlier.stage if row.earlier else None,
    )


def start_python(args: list[str], **environment: str) -> subprocess.Popen[str]:
    """Starts `python` with one thread, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, *args],
        cwd=PROJECT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def start(args: list[str]) -> subprocess.Popen[str]:
    """Starts `python -m pipeline`."""
    return start_python(["-m", "pipeline", *args])


def run(args: list[str], timeout: float = 300) -> tuple[int, str]:
    """Runs `python -m pipeline` to its end: exit status and all that it printed."""
    process = start(args)
    output, _ = process.communicate(timeout=timeout)
    return process.returncode, output
