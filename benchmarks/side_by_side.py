"""Times and peaks of memory of several ways to do the same, which take turns in one process."""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

Way = Callable[[], object]


def synchronize(device: str) -> None:
    """Waits until a GPU is done."""
    if device == "cuda":
        torch.cuda.synchronize()


def median_seconds(ways: Mapping[str, Way], repetitions: int, device: str) -> dict[str, float]:
    """Median wall time of each way; they alternate, after a turn that is not counted.

    Args:
        ways: what is timed.
        repetitions: turns that are counted.
        device: `cuda` waits for the GPU before and after each.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(repetitions + 1):
        for name, way in ways.items():
            synchronize(device)
            start = time.perf_counter()
            way()
            synchronize(device)
            if repetition:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_growth(way: Way, device: str) -> float:
    """Growth of the peak of memory over one call, MB.

    That of the CUDA allocator, or on a CPU of the resident memory (Linux), which feels what the
    process freed before and did not give back: on a CPU take a process of its own.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        way()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    resident = _status("VmRSS")
    way()
    return (_status("VmHWM") - resident) / 1024


def _status(field: str) -> int:
    """A line of /proc/self/status, kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])
