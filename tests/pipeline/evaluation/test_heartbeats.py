import os
import subprocess
import sys
import time
from pathlib import Path

from pipeline.evaluation.heartbeats import Heartbeat
from tests.pipeline.commands import PROJECT

WORKER = """
import sys, time
from pathlib import Path
from pipeline.evaluation.heartbeats import Heartbeat
heartbeat = Heartbeat(Path(sys.argv[1]), 1, 2, every=0.05)
print("lives", flush=True)
time.sleep(600)
"""


def test_a_process_that_is_killed_is_lost(tmp_path: Path) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "lives\n"
    mine = Heartbeat(tmp_path, 0, 2, lost_after=5)
    theirs = tmp_path / ".alive-1"
    first = theirs.stat().st_mtime_ns
    while theirs.stat().st_mtime_ns == first:  # another sign
        assert worker.poll() is None
        time.sleep(0.01)
    assert mine.lost() == []
    worker.kill()
    worker.wait()
    old = theirs.stat().st_mtime - 6
    os.utime(theirs, (old, old))
    assert mine.lost() == [1]
    mine.end()
    assert not (tmp_path / ".alive-0").exists()


def test_a_process_that_ended_is_not_lost(tmp_path: Path) -> None:
    one, other = (Heartbeat(tmp_path, rank, 2, lost_after=0.0) for rank in (0, 1))
    other.end()
    assert one.lost() == []
    one.end()
