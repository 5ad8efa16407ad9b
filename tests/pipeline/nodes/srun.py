"""Stands in for SLURM's `srun`: nodes are processes of this machine.

It starts the command once a task, with the variables that tell tasks apart. With
`--kill-on-bad-exit` a task that fails ends all others, by SIGTERM and then by SIGKILL. Where
SRUN_LAUNCHER is torchrun, it starts one torchrun a node instead, and none ends another's processes.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

KILL_WAIT = 5.0  # seconds from SIGTERM to SIGKILL, SLURM's KillWait


def node_commands(command: list[str]) -> Iterator[tuple[list[str], dict[str, str]]]:
    """What to start, and the environment that each gets besides this one's."""
    nodes = int(os.environ["SLURM_JOB_NUM_NODES"])
    tasks = int(os.environ["SLURM_NTASKS_PER_NODE"])
    python, *rest = command
    assert python == ".venv/bin/python", command
    for node in range(nodes):
        of_node = {"SLURM_NODEID": str(node)}
        if os.environ.get("SRUN_LAUNCHER") == "torchrun":
            torchrun = [
                *("-m", "torch.distributed.run"),
                f"--nnodes={nodes}",
                f"--nproc-per-node={tasks}",
                "--rdzv-backend=c10d",
                f"--rdzv-endpoint=127.0.0.1:{os.environ['MASTER_PORT']}",
                f"--rdzv-conf=is_host={int(node == 0)}",
                "--local-addr=127.0.0.1",
            ]
            yield [sys.executable, *torchrun, *rest], of_node
            continue
        for task in range(tasks):
            of_task = {
                "SLURM_PROCID": str(node * tasks + task),
                "SLURM_LOCALID": str(task),
                "SLURM_NTASKS": str(nodes * tasks),
            }
            yield [sys.executable, *rest], of_node | of_task


def end(processes: list["subprocess.Popen[bytes]"]) -> None:
    """Ends those that still run."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + KILL_WAIT
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in processes:
        process.kill()


def main(words: list[str]) -> int:
    """Runs the job to its end: the first exit status that is not 0, or 0."""
    start = next(position for position, word in enumerate(words) if not word.startswith("-"))
    kills = "--kill-on-bad-exit=1" in words[:start] and "SRUN_LAUNCHER" not in os.environ
    processes = [
        subprocess.Popen(command, env=os.environ | more)
        for command, more in node_commands(words[start:])
    ]
    status = 0
    while any(process.poll() is None for process in processes):
        failed = [process.returncode for process in processes if process.returncode]
        status = status or (failed[0] if failed else 0)
        if failed and kills:
            end(processes)
        time.sleep(0.05)
    status = status or next((p.returncode for p in processes if p.returncode), 0)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
