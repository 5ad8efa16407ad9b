"""Stage 2 at scale without its network: constant memory, kills, other numbers of processes.

    python benchmarks/label_dry_run.py                  # 200,000 images
    python benchmarks/label_dry_run.py --images 5000 --shard-size 100

A few tiny JPEG files are linked under as many names as wanted. The data module, the trainer, the
callback, mask encoding and the Parquet shards are those of stage 2; only the network is a stub,
whose detections follow from the pixels. One run is left alone while the memory of its processes is
measured; another is killed (SIGKILL to all its processes) at random points and gone on with by
1, 2 and 3 processes in turn. Both must hold the same rows.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from label_stub import SOURCES, label, make_data
from rich.console import Console
from rich.table import Table


def start(args: argparse.Namespace, run: Path, devices: int) -> "subprocess.Popen[bytes]":
    """Starts `label` in a process group of its own."""
    values = [args.root, run, devices, args.workers, args.shard_size]
    with (args.root / "log.txt").open("a") as log:
        return subprocess.Popen(
            [sys.executable, __file__, "--label", *map(str, values)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def memory(session: int) -> tuple[float, int]:
    """Resident memory of a session's processes in MiB, shared pages counted once, and how many."""
    total, processes = 0, 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) != session:
                continue
            lines = (folder / "smaps_rollup").read_text().splitlines()
        except OSError:  # it ended meanwhile
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        processes += 1
    return total / 1024, processes


def shards_in(run: Path) -> int:
    """Number of whole shards of a run folder."""
    return sum(1 for _ in (run / "labels").glob("*.parquet"))


def finish(args: argparse.Namespace, process: "subprocess.Popen[bytes]") -> None:
    """Waits for the end of a run that must end well."""
    if process.wait():
        sys.exit(f"error: stage 2 ended with {process.returncode}, see {args.root / 'log.txt'}")


def run_alone(args: argparse.Namespace, run: Path) -> dict[str, Any]:
    """The run that is left alone: seconds, and curve of (s, images, MiB, processes)."""
    process, began, first = start(args, run, 1), time.monotonic(), 0.0
    curve = []
    while process.poll() is None:
        time.sleep(args.every)
        used, processes = memory(process.pid)
        images = min(args.images, shards_in(run) * args.shard_size)
        if images and not first:
            first = time.monotonic()
        if processes:
            curve.append((time.monotonic() - began, images, used, processes))
    finish(args, process)
    return {"seconds": time.monotonic() - first, "curve": curve}


def run_killed(args: argparse.Namespace, run: Path, console: Console) -> list[dict[str, int]]:
    """The run that is killed at random points and ends all the same."""
    chance = random.Random(args.seed)
    total = -(-args.images // args.shard_size)
    points = sorted(chance.sample(range(1, total), args.kills))
    kills = []
    for number, point in enumerate([*points, None]):
        devices = 1 + number % 3
        process = start(args, run, devices)
        if point is None:
            console.print(f"goes on with {devices} processes to the end")
            finish(args, process)
            break
        point = max(point, shards_in(run) + 1)  # each start makes some
        while shards_in(run) < point and process.poll() is None:
            time.sleep(0.02)
        time.sleep(chance.random() * 0.5)  # in the middle of a shard
        if process.poll() is not None:
            sys.exit(f"error: stage 2 ended before kill {number + 1}, see {args.root / 'log.txt'}")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills.append({"processes": devices, "shards": shards_in(run)})
        console.print(f"killed {devices} processes at {kills[-1]['shards']} of {total} shards")
    return kills


def rows_equal(one: Path, other: Path) -> bool:
    """Whether two run folders hold the same shards with the same rows, errors included."""
    names = [sorted(p.name for p in (run / "labels").glob("*.parquet")) for run in (one, other)]
    return names[0] == names[1] and all(
        pq.read_table(one / "labels" / name).equals(pq.read_table(other / "labels" / name))
        for name in names[0]
    )


def plot(curve: list[tuple[float, int, float, int]], path: Path) -> None:
    """Memory over images as a picture."""
    from matplotlib.figure import Figure

    figure = Figure((6, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot([point[1] for point in curve], [point[2] for point in curve])
    axes.set(xlabel="images", ylabel="memory of all processes (MiB)", ylim=(0, None))
    figure.savefig(path, dpi=120)


def steady(curve: list[tuple[float, int, float, int]], images: int) -> dict[str, float | None]:
    """Median memory and its slope over the last nine tenths, None for a run of a few seconds."""
    part = np.array([(n, used) for _, n, used, _ in curve if images / 10 <= n < images])
    if len(part) < 3:
        return {"steady_memory_mib": None, "memory_slope_mib_per_100k": None}
    slope = np.polyfit(part[:, 0], part[:, 1], 1)[0] * 1e5
    return {
        "steady_memory_mib": round(float(np.median(part[:, 1])), 1),
        "memory_slope_mib_per_100k": round(float(slope), 2),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--shard-size", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="decoding processes per process")
    parser.add_argument("--seed", type=int, default=0, help="of the points of the kills")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two measurements")
    parser.add_argument("--root", type=Path, help="folder for data and labels, kept; default: none")
    parser.add_argument("--plot", type=Path, help="PNG of the memory curve")
    args = parser.parse_args()
    keep = args.root is not None
    args.root = (args.root or Path(tempfile.mkdtemp(prefix="label_dry_run_"))).resolve()
    console = Console()
    try:
        began = time.monotonic()
        make_data(args.root, args.images)
        console.print(
            f"{args.images:,} names of {SOURCES} pictures, {time.monotonic() - began:.0f} s"
        )
        alone = run_alone(args, args.root / "alone")
        curve = alone["curve"]
        table = Table("images", "seconds", "memory, MiB", "processes", title="left alone")
        for tenth in range(11):
            at = min(curve, key=lambda point: abs(point[1] - tenth * args.images / 10))
            table.add_row(f"{at[1]:,}", f"{at[0]:.0f}", f"{at[2]:.0f}", str(at[3]))
        console.print(table)
        if args.plot:
            plot(curve, args.plot)
        kills = run_killed(args, args.root / "killed", console)
        result = {
            "rows_equal": rows_equal(args.root / "alone", args.root / "killed"),
            "rows": sum(
                pq.read_metadata(path).num_rows
                for path in (args.root / "killed/labels").glob("*.parquet")
            ),
            "peak_memory_mib": round(max(point[2] for point in curve), 1),
            **steady(curve, args.images),
            "images_per_s": round(args.images / alone["seconds"], 1),
            "kills": len(kills),
            "killed_at_shards": [kill["shards"] for kill in kills],
            "seconds": round(time.monotonic() - began),
        }
    finally:
        if not keep:
            shutil.rmtree(args.root, ignore_errors=True)
    print(json.dumps(result))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--label"]:
        label(Path(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:]))
    else:
        main()
