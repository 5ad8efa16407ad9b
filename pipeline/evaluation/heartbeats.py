"""Signs of life of an evaluation's processes, so that none waits for one that is lost."""

import threading
from contextlib import suppress
from pathlib import Path

EVERY = 10.0  # seconds between two signs
LOST_AFTER = 120.0  # seconds without one; network file systems show it up to a minute late


class Heartbeat:
    """A file for each process, touched by a thread as long as the process lives.

    A collective operation would notice a lost process, too, but would have to wait as long as
    attacks may differ. Times are compared with those of the process's own file, as nodes' clocks
    differ from the file system's.

    Args:
        folder: folder that all processes share.
        rank: this process.
        world_size: number of processes.
        every: seconds between two signs.
        lost_after: seconds without a sign after which a process counts as lost.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        world_size: int,
        every: float = EVERY,
        lost_after: float = LOST_AFTER,
    ) -> None:
        self.folder = folder
        self.rank = rank
        self.world_size = world_size
        self.every = every
        self.lost_after = lost_after
        self._ended = threading.Event()
        self._touch(rank)
        threading.Thread(target=self._beat, daemon=True).start()

    def lost(self) -> list[int]:
        """The processes that gave no sign for too long."""
        self._touch(self.rank)
        now = self._file(self.rank).stat().st_mtime
        return [rank for rank in range(self.world_size) if now - self._seen(rank) > self.lost_after]

    def end(self) -> None:
        """Ends the signs of this process; once all know that they need none."""
        self._ended.set()
        self._file(self.rank).unlink(missing_ok=True)

    def _file(self, rank: int) -> Path:
        return self.folder / f".alive-{rank}"

    def _seen(self, rank: int) -> float:
        try:
            return self._file(rank).stat().st_mtime
        except FileNotFoundError:  # it ended, or is to be shown soon
            return float("inf")

    def _touch(self, rank: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file(rank).touch()

    def _beat(self) -> None:
        while not self._ended.wait(self.every):
            with suppress(OSError):  # a file system that is away for a moment takes the next one
                self._touch(self.rank)
