import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import pytest

from datamodules.files.errors import UserError
from datamodules.labels.shard_claims import OnlyStart, ShardClaims

# A start with a loader worker that outlives it.
START = """
import os, sys, time
from pathlib import Path
from datamodules.labels.shard_claims import OnlyStart
only = OnlyStart(Path(sys.argv[1]))
worker = os.fork()
if worker:
    print(worker, flush=True)
time.sleep(100)
"""


@contextmanager
def started(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another start of the run, in a process of its own."""
    args = [sys.executable, "-c", START, str(folder)]
    with subprocess.Popen(args, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        worker = int(process.stdout.readline())
        try:
            yield process
        finally:
            process.kill()
            os.kill(worker, signal.SIGKILL)


def draw_all(folder: Path, run: str) -> list[int]:
    return list(ShardClaims(folder, run).draw(range(300)))


def test_each_shard_is_drawn_by_one_process(tmp_path: Path) -> None:
    with get_context("spawn").Pool(4) as pool:
        drawn = pool.starmap(draw_all, [(tmp_path, "a")] * 4, chunksize=1)
    assert sorted(shard for shards in drawn for shard in shards) == list(range(300))
    assert draw_all(tmp_path, "a") == []
    assert draw_all(tmp_path, "b") == list(range(300))  # another start of the run


def test_the_last_to_leave_hears_of_all(tmp_path: Path) -> None:
    claims = ShardClaims(tmp_path, "a")
    assert claims.leave(2, 3, {"shards": [5]}) is None
    assert claims.leave(0, 3, {"shards": []}) is None
    reports = claims.leave(1, 3, {"shards": [1, 2]})
    assert reports == [{"shards": []}, {"shards": [1, 2]}, {"shards": [5]}]
    ShardClaims.clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_second_start_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        with pytest.raises(UserError, match=r"labelled by another start .*delete .*\.lock"):
            OnlyStart(tmp_path)
        process.kill()
        process.wait()
        OnlyStart(tmp_path).let_go()  # though the worker of the first lives
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks_refuses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lockf(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", lockf)
    OnlyStart(tmp_path).let_go()
    OnlyStart(tmp_path / "none").let_go()
    assert not list(tmp_path.iterdir())


def test_unwritable_folder_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("a file")
    with pytest.raises(ValueError, match=r"labels cannot be written \(File exists\): make room"):
        next(ShardClaims(tmp_path / "labels", "a").draw([0]))
