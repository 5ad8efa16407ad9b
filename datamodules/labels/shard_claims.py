"""Which process of a run makes which shard, without a server and without waiting."""

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from datamodules.files.errors import UserError


def cannot_write(path: Path, error: OSError) -> UserError:
    """The one line for a disk that is full, over quota or read-only."""
    return UserError(
        f"{path} cannot be written ({error.strerror or error}): make room and run the same command "
        "again, everything that is there stays"
    )


class OnlyStart:
    """Keeps other starts of a run away from its shards, until it is let go or its process dies.

    A start takes the claims of all others for those of a killed one. The lock is POSIX's, not
    `flock`'s: loader workers that outlive a killed process for seconds do not inherit it. Where
    the file system has no locks, nothing is kept away.

    Args:
        folder: folder of the shards, which is there.

    Raises:
        UserError: if another process has the lock.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"
        self._file: IO[bytes] | None = None
        try:
            self._file = self.path.open("wb")
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if self._file and error.errno in (errno.EACCES, errno.EAGAIN):
                self._file.close()
                raise UserError(
                    f"{folder} is being labelled by another start of this run: wait for it or "
                    f"stop it; if there is none on any machine, delete {self.path}"
                ) from None

    def let_go(self) -> None:
        """Lets other starts in."""
        if self._file and not self._file.closed:
            self.path.unlink(missing_ok=True)  # before it is another's
            self._file.close()


class ShardClaims:
    """Processes draw the next shard that no other has; the last to leave hears of all.

    A claim is a file that only one process can create, which holds on every file system that
    nodes share. No server has to outlive the processes, as a counter in torch.distributed's
    store would need, and no process is told its share beforehand, so all end within one shard
    of each other. Claims of a killed run mean nothing to the next, which has another name.

    Args:
        folder: folder of the shards, shared by all processes.
        run: name of this start of the run, the same in all its processes and in no other start.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self.folder = folder
        self.run = run

    def draw(self, shards: Sequence[int]) -> Iterator[int]:
        """Claims the next free shard at each step, until none is free.

        Raises:
            UserError: if the folder cannot be written to.
        """
        for shard in shards:
            if self._take(f"shard-{shard:05d}"):
                yield shard

    def leave(self, rank: int, world_size: int, report: dict[str, Any]) -> list[dict] | None:
        """Ends a process's part in the run.

        Args:
            rank: number of the process, 0..world_size - 1; each leaves once.
            world_size: number of processes of the run.
            report: JSON-able values for the last one.

        Returns:
            The reports of all processes by rank to the one that leaves last, None to the others.

        Raises:
            UserError: if the folder cannot be written to.
        """
        path = self._path(f"report-{rank}")
        try:
            path.write_text(json.dumps(report))
        except OSError as error:
            raise cannot_write(path, error) from None
        # Not a listing of the reports, which a network file system may show late: one ticket each.
        ticket = next(i for i in range(world_size) if self._take(f"left-{i}"))
        if ticket < world_size - 1:
            return None
        return [json.loads(self._path(f"report-{i}").read_text()) for i in range(world_size)]

    @staticmethod
    def clear(folder: Path) -> None:
        """Removes the claims of all runs; before a run starts or after all processes left."""
        for path in folder.glob(".claim-*"):
            path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f".claim-{self.run}-{name}"

    def _take(self, name: str) -> bool:
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path.parent, error) from None
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        except OSError as error:
            raise cannot_write(path, error) from None
        return True
