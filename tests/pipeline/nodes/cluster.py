"""Jobs of `configs/slurm` on this machine, and the loss of one of their nodes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback

from tests.pipeline.commands import PROJECT

Launcher = Literal["srun", "torchrun"]
LONGEST = 600.0  # seconds that a job may take, here and on machines that have other work, too


class SlowSteps(Callback):
    """A pause after every batch, so that a node is lost in the middle of a stage.

    Args:
        seconds: length of the pause.
    """

    def __init__(self, seconds: float = 0.2) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        time.sleep(self.seconds)

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        time.sleep(self.seconds)

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        time.sleep(self.seconds)


@dataclass(frozen=True)
class Job:
    """A job that runs.

    Attributes:
        process: its batch script.
        number: SLURM's number of the job, which all its processes have in their environment.
    """

    process: "subprocess.Popen[str]"
    number: int

    def processes(self, node: int | None = None) -> list[int]:
        """Ids of the processes of a node, or of all of them and what started them."""
        wanted = {f"SLURM_JOB_ID={self.number}"}
        if node is not None:
            wanted.add(f"SLURM_NODEID={node}")
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes().decode(errors="replace")
            except OSError:  # it is gone, or another user's
                continue
            if wanted <= {*environment.split("\0")}:
                found.append(int(folder.name))
        return found

    def kill(self, node: int | None = None) -> None:
        """The loss of a node, or of all of them: no process gets to tidy up."""
        for process in self.processes(node):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def kill_node_when(self, node: int, is_time: Callable[[], bool]) -> None:
        """Waits for the middle of the stage and kills a node."""
        deadline = time.monotonic() + LONGEST
        while not is_time():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(self.finish()[1])
            time.sleep(0.02)
        self.kill(node)

    def finish(self, timeout: float = LONGEST) -> tuple[int, str]:
        """Waits for the job's end: exit status and all that its processes printed."""
        try:
            output, _ = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            output, _ = self.process.communicate()
            raise AssertionError(f"the job hung: {output}") from None
        return self.process.returncode, output


def sbatch(
    script: str, folder: Path, nodes: int, tasks: int, launcher: Launcher, *args: str, **env: str
) -> Job:
    """Starts a batch script of `configs/slurm` with a stand-in for `srun`.

    Args:
        script: its name.
        folder: gets the stand-in.
        nodes: number of nodes.
        tasks: number of tasks of each node.
        launcher: what a node starts its processes with.
        *args: further settings.
        **env: variables for the script.
    """
    stand_in = folder / "bin" / "srun"
    stand_in.parent.mkdir(exist_ok=True)
    stand_in.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).parent}/srun.py" "$@"'
    )
    stand_in.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "PATH": f"{stand_in.parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "MASTER_PORT": str(port),
        "SLURM_JOB_ID": str(port),
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_NNODES": str(nodes),
        "SLURM_NTASKS_PER_NODE": str(tasks),
        **({"SRUN_LAUNCHER": launcher} if launcher == "torchrun" else {}),
        **env,
    }
    process = subprocess.Popen(
        ["bash", str(PROJECT / "configs" / "slurm" / f"{script}.sh"), *args],
        cwd=PROJECT,
        env=os.environ | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    return Job(process, port)
