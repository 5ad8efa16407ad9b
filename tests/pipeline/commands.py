"""How the tests start stages: with the small configurations and a tiny overlay."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent.parent
SUBCOMMANDS = {
    "stage1_segmenter": "fit",
    "stage2_pseudolabels": "predict",
    "stage3_mpm": "fit",
    "evaluate": "test",
}


def stage_args(stage: str, data: Path, runs: Path, *args: str, name: str = "") -> list[str]:
    """Arguments of `python -m pipeline` for a tiny run of a stage."""
    linked = {
        "stage1_segmenter": [],
        "stage2_pseudolabels": [f"--model.init_args.segmenter={runs / 'stage1_segmenter'}"],
        "stage3_mpm": [f"--data.init_args.labels={runs / 'stage2_pseudolabels'}"],
        "evaluate": [f"--model.init_args.model={runs / 'stage3_mpm'}"],
    }
    return [
        stage,
        SUBCOMMANDS[stage],
        f"-c={PROJECT / 'configs' / stage / 'small.yaml'}",
        f"-c={PROJECT / 'tests' / 'configs' / f'{stage}.yaml'}",
        f"--data.init_args.imagenet={data / 'imagenet'}",
        f"--data.init_args.pinpp={data / 'pinpp'}",
        f"--trainer.default_root_dir={runs / (name or stage)}",
        *linked[stage],
        *args,
    ]


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
