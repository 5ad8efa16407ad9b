"""Share of the time that the GPU computes while it trains."""

import time
from collections.abc import Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.adversarial_step import batch, model
from benchmarks.gpu_check.results import Figure
from benchmarks.gpu_check.scale import Setting
from benchmarks.side_by_side import synchronize

STEPS, WARM_UP, AIM = 5, 3, 90.0


def measure(setting: Setting) -> list[Figure]:
    """Steps of the largest batch as a training makes them: copy to the GPU, step, optimiser.

    The union of the kernels' times over wall time. The profiler itself slows the launches down, so
    that the share is at least this. A CPU has none.

    Raises:
        RuntimeError: if the profiler is not shown the GPU's kernels.
    """
    device, size = setting.device, setting.batches[-1]
    mpm = model(setting.scale.shape)
    mpm.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(mpm.parameters(), lr=1e-4, momentum=0.9)
    given = batch(size, "cpu", setting.scale.shape)
    if device == "cuda":
        given = {key: value.pin_memory() for key, value in given.items()}

    def step() -> None:
        moved = {key: value.to(device, non_blocking=True) for key, value in given.items()}
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = mpm.training_step(moved, 0)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    for _ in range(WARM_UP if device == "cuda" else 1):
        step()
    synchronize(device)
    gpu = [ProfilerActivity.CUDA] if device == "cuda" else []
    with profile(activities=[ProfilerActivity.CPU, *gpu]) as profiler:
        started = time.perf_counter()
        for _ in range(STEPS if device == "cuda" else 1):
            step()
        synchronize(device)
        wall = time.perf_counter() - started
    spans = device_spans(profiler.events() or ())
    if device == "cuda" and not spans:
        raise RuntimeError(
            "the profiler sees no kernel: run as root, or let the driver allow profiling "
            "(NVreg_RestrictProfilingToAdminUsers=0)"
        )
    share = 100 * union(spans) / 1e6 / wall if device == "cuda" else None
    return [Figure(f"GPU busy, AT step of batch {size}, at least", share, "%", AIM)]


def device_spans(events: Iterable[Any]) -> list[tuple[float, float]]:
    """Start and end of all kernels and copies, microseconds; ranges that code named are none."""
    return [
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type == torch.autograd.DeviceType.CUDA
        and not getattr(event, "is_user_annotation", False)
    ]


def union(spans: Iterable[tuple[float, float]]) -> float:
    """Length of what the spans cover together, as streams overlap."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered
