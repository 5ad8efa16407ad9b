"""Stages as processes side by side, and a lock that outlives whoever started them."""

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

from datamodules.files.errors import UserError
from pipeline.study.commands import DONE, Step

SECONDS_TO_END = 30


class StepFailed(Exception):
    """A stage ended with an error; the message says where its log is and how it ends."""


class Processes:
    """Runs steps of a study, each as one process that writes to a log file.

    Use it as a context: at its end, however it comes, no process is left. While any process of a
    study is alive the study's folder is locked, even if what started it was killed.

    Args:
        folder: of the study; gets `logs/`, `done/` and `.lock`.
        threads: of each process.

    Raises:
        UserError: if another process works in the folder.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self.logs = folder / "logs"
        self.marks = folder / DONE
        self.logs.mkdir(parents=True, exist_ok=True)
        self.threads = threads
        self._alive: set[subprocess.Popen[bytes]] = set()
        self._changing = threading.Lock()
        self._stopped = False
        self._lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise UserError(
                f"{folder} is in use by a study that still runs: wait for it or stop it"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        os.close(self._lock)

    def run(self, step: Step) -> None:
        """Runs a step unless it is done; a cut one goes on where it was.

        Raises:
            StepFailed: if it ended with an error.
        """
        if step.is_done(self.marks):
            return
        log = self.logs / f"{step.name}.log"
        with log.open("ab") as output:
            if status := self._start(step, output.fileno()).wait():
                lines = log.read_text(errors="replace").strip().splitlines()
                last = lines[-1] if lines else "no output"
                raise StepFailed(f"{step.name} ended with status {status}: {last}; see {log}")
        step.mark_done(self.marks)

    def stop(self) -> None:
        """Ends all processes, and lets no further one begin."""
        with self._changing:
            self._stopped = True
            alive = [process for process in self._alive if process.poll() is None]
        for process in alive:
            process.terminate()
        for process in alive:
            try:
                process.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()

    def _start(self, step: Step, output: int) -> subprocess.Popen[bytes]:
        with self._changing:
            if self._stopped:
                raise StepFailed(f"{step.name} was not started: the study was stopped")
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "pipeline", *step.arguments],
                env=os.environ | {"OMP_NUM_THREADS": str(self.threads)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # an interrupt at the terminal reaches this process alone, which ends the others
                start_new_session=True,
                pass_fds=(self._lock,),
            )
            self._alive.add(process)
            return process
