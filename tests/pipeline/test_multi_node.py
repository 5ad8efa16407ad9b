"""Several nodes: two torchrun agents on this machine, one process each."""

import json
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import torch

from datamodules.images.imagenet_folder import list_images
from datamodules.labels.label_set import read_labels
from pipeline.runs.stages import STAGES
from tests.pipeline.commands import PROJECT, stage_args, start_python

SLURM = sorted((PROJECT / "configs" / "slurm").glob("*.sh"))


def run_nodes(args: list[str], nodes: int = 2, timeout: float = 240) -> list[tuple[int, str]]:
    """Runs `-m pipeline` under one torchrun a node: exit status and output of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        start_python(
            [
                *("-m", "torch.distributed.run"),
                f"--nnodes={nodes}",
                "--nproc-per-node=1",
                f"--node-rank={rank}",
                "--master-addr=127.0.0.1",
                f"--master-port={port}",
                *("-m", "pipeline", *args),
                "--trainer.strategy=ddp",
                "--trainer.devices=1",
                f"--trainer.num_nodes={nodes}",
            ]
        )
        for rank in range(nodes)
    ]
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return [(p.returncode, output) for p, output in zip(processes, outputs, strict=True)]


def test_two_nodes_label_every_image_once(
    finished_runs: Path, shapes_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_runs / "stage1_segmenter", tmp_path / "stage1_segmenter")
    args = stage_args("stage2_pseudolabels", shapes_root, tmp_path)
    for code, output in run_nodes(args):
        assert code == 0, output
    run = tmp_path / "stage2_pseudolabels"
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["state"] == "complete"
    shards = {f"labels/{shard:05d}.parquet" for shard in range(5)}
    assert shards <= manifest["outputs"].keys()
    assert not any(".claim" in path.name for path in (run / "labels").iterdir())
    images = [key for key, _ in list_images(shapes_root / "imagenet" / "train")]
    assert [row.key for row in read_labels(run)] == images


def test_two_nodes_train_the_segmenter(
    finished_runs: Path, shapes_root: Path, tmp_path: Path
) -> None:
    args = stage_args("stage1_segmenter", shapes_root, tmp_path, "--trainer.max_steps=2")
    for code, output in run_nodes(args):
        assert code == 0, output
    run = tmp_path / "stage1_segmenter"
    assert json.loads((run / "manifest.json").read_text())["state"] == "complete"
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2


def sbatch(script: Path, folder: Path, *args: str, **environment: str) -> list[str]:
    """Runs a script with stand-ins for SLURM's commands: the words that these were given."""
    for name in ("srun", "scontrol"):
        (folder / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (folder / name).chmod(0o755)
    done = subprocess.run(
        ["bash", str(script), *args],
        env={
            "PATH": f"{folder}:{os.environ['PATH']}",
            "IMAGENET": "/data/imagenet",
            "PINPP": "/data/pinpp",
            "SLURM_JOB_NUM_NODES": "3",
            "SLURM_NTASKS_PER_NODE": "8",
            **environment,
        },
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("script", SLURM, ids=lambda path: path.stem)
def test_slurm_script(script: Path, tmp_path: Path) -> None:
    words = sbatch(script, tmp_path, "--trainer.max_epochs=3", BATCH="48", SLURM_CPUS_PER_TASK="5")
    assert "--cpus-per-task=5" in words[words.index("srun") : words.index(".venv/bin/python")]
    stage = script.stem
    folder = "evaluate/stage3_mpm" if stage == "evaluate" else stage
    assert f"python -m pipeline {stage} " in " ".join(words)
    config = words[words.index("-c") + 1]
    assert (STAGES[stage].configs / f"{config}.yaml").is_file()
    assert {
        "--trainer.num_nodes=3",
        "--trainer.devices=8",
        "--data.init_args.imagenet=/data/imagenet",
        "--trainer.max_epochs=3",
        f"--trainer.default_root_dir=runs/{folder}",
    } <= set(words)
    if STAGES[stage].trains:  # the recipe's batch over all 24 processes
        assert "--data.init_args.batch_size=2" in words
    options = [line for line in script.read_text().splitlines() if line.startswith("#SBATCH")]
    assert "#SBATCH --requeue" in options
    assert any("--signal=" in option for option in options)


@pytest.mark.parametrize(
    "variables",
    [
        {"CONFIG": "small", "MODEL": "out/some/model"},
        {"CONFIG": "checks", "NAME": "mine"},
        {"CONFIG": "imagenet smoothing"},
        {"CONFIG": "imagenet pin11", "RUNS": "out"},
        {"CONFIG": "imagenet pin125 smoothing"},
    ],
)
def test_slurm_evaluates_into_the_folders_of_make(
    variables: dict[str, str], tmp_path: Path
) -> None:
    key = "--trainer.default_root_dir="
    (ours,) = (
        word
        for word in sbatch(PROJECT / "configs" / "slurm" / "evaluate.sh", tmp_path, **variables)
        if word.startswith(key)
    )
    command = ["make", "-n", "evaluate", "IMAGENET=i", *(f"{k}={v}" for k, v in variables.items())]
    made = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert f"{key}'{ours.removeprefix(key)}' " in made.stdout
