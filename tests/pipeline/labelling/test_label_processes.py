"""Labelling in processes of its own: killed, stopped, side by side, on a full disk."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.pipeline.labelling.label_world import KEYS, files_of, predict, start_labelling


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    try:
        output, _ = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == status, output[-2000:]
    return output


def await_shard(run: Path, shard: int) -> None:
    deadline = time.monotonic() + 100
    while not (run / f"labels/{shard:05d}.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def test_killed_run_goes_on_to_the_same_labels(
    label_root: Path, whole_labels: Path, tmp_path: Path
) -> None:
    process = start_labelling(label_root, tmp_path, devices=1, pause=0.4)
    await_shard(tmp_path, 0)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = files_of(tmp_path)
    assert "00000.parquet" in done
    assert "00004.parquet" not in done
    times = (tmp_path / "labels/00000.parquet").stat().st_mtime_ns
    # another number of processes than before
    output = finish(start_labelling(label_root, tmp_path, devices=2))
    written = len(KEYS) - 3 * len([name for name in done if name.endswith(".parquet")])
    assert f"labelled {written} images in 0:00:" in output
    assert "1 could not be labelled; of 14 in all, 1 could not" in output
    assert files_of(tmp_path) == files_of(whole_labels)
    assert (tmp_path / "labels/00000.parquet").stat().st_mtime_ns == times


def test_a_second_start_is_refused_and_leaves_the_first_alone(
    label_root: Path, whole_labels: Path, tmp_path: Path
) -> None:
    first = start_labelling(label_root, tmp_path, devices=1, pause=1.0)
    await_shard(tmp_path, 0)
    with pytest.raises(ValueError, match="labels is being labelled by another start of this run"):
        predict(label_root, tmp_path)
    predict(label_root, tmp_path, fast_dev_run=True)
    assert list(tmp_path.glob("labels/.claim-*"))
    finish(first)
    assert files_of(tmp_path) == files_of(whole_labels)


def test_two_processes_write_every_image_once(
    label_root: Path, whole_labels: Path, tmp_path: Path
) -> None:
    finish(start_labelling(label_root, tmp_path, devices=2))
    assert files_of(tmp_path) == files_of(whole_labels)
    damaged = tmp_path / "labels/00003.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    finish(start_labelling(label_root, tmp_path, devices=2))  # the second process has nothing to do
    assert files_of(tmp_path) == files_of(whole_labels)
    predict(label_root, tmp_path)  # nor has anyone here
    assert files_of(tmp_path) == files_of(whole_labels)


def test_full_disk_is_said_in_one_line_and_leaves_whole_shards(
    label_root: Path, whole_labels: Path, tmp_path: Path
) -> None:
    sizes = [(whole_labels / f"labels/{shard:05d}.parquet").stat().st_size for shard in range(5)]
    limit = sizes[0] + 1
    first = next(shard for shard, size in enumerate(sizes) if size > limit)
    output = finish(start_labelling(label_root, tmp_path, 1, 0.0, str(limit)), status=1)
    assert f"labels/{first:05d}.parquet cannot be written (File too large): make room" in output
    left = files_of(tmp_path)
    assert not any(name.endswith(".partial") for name in left)
    kept = [name for name in left if name.endswith(".parquet")]
    assert kept
    assert all(left[name] == files_of(whole_labels)[name] for name in kept)
    predict(label_root, tmp_path)
    assert files_of(tmp_path).keys() == files_of(whole_labels).keys()


@pytest.mark.parametrize(
    ("devices", "number", "status"),
    [(2, signal.SIGTERM, 143), (1, signal.SIGINT, 1)],
)
def test_stopped_run_leaves_whole_shards(
    label_root: Path,
    whole_labels: Path,
    tmp_path: Path,
    devices: int,
    number: signal.Signals,
    status: int,
) -> None:
    process = start_labelling(label_root, tmp_path, devices, 1.5)
    await_shard(tmp_path, 0)
    os.killpg(process.pid, number)  # to its workers and the other process as well
    output = finish(process, status)
    assert "stopped after" in output
    assert "Traceback" not in output
    left = files_of(tmp_path)
    kept = [name for name in left if name.endswith(".parquet")]
    assert "00000.parquet" in kept
    assert len(kept) < 5
    assert all(left[name] == files_of(whole_labels)[name] for name in kept)
