"""Time and memory of an adversarial training step, PGD-2, under bfloat16 on a GPU."""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.adversarial_step import CLEAN, batch, model, trained_step
from benchmarks.gpu_check.results import Ratio, Result, memory_ratio
from benchmarks.gpu_check.scale import Setting
from benchmarks.side_by_side import median_seconds, peak_growth
from modules.mpm import MPM

Step = Callable[[], None]
AIM = 2.5


def plain_smallest(setting: Setting) -> list[Result]:
    """At the recipe's batch of one GPU."""
    return _against_theirs(setting, setting.batches[0])


def plain_largest(setting: Setting) -> list[Result]:
    """At the largest batch, with the price over a clean step."""
    size = setting.batches[-1]
    given, shape = batch(size, setting.device, setting.scale.shape), setting.scale.shape
    results = _against_theirs(setting, size)
    clean = trained_step(model(shape, attack=CLEAN), given)
    seconds = median_seconds({"clean": clean}, setting.scale.repetitions, setting.device)["clean"]
    return [
        *results,
        Ratio(
            f"AT step, batch {size}, beside a clean one",
            1e3 * seconds,
            1e3 * setting.step_seconds[size],
            "ms",
            "our step on clean images",
        ),
    ]


def compiled_smallest(setting: Setting) -> list[Result]:
    """With `compile_network`, at the recipe's batch of one GPU."""
    return _against_theirs(setting, setting.batches[0], compile_network=True)


def compiled_largest(setting: Setting) -> list[Result]:
    """With `compile_network`, at the largest batch."""
    return _against_theirs(setting, setting.batches[-1], compile_network=True)


def cuda_graphs(setting: Setting) -> list[Result]:
    """The compiled step with its kernels recorded as CUDA graphs; none on a CPU."""
    if setting.device != "cuda":
        return []
    size, shape = setting.batches[0], setting.scale.shape
    given = batch(size, setting.device, shape)
    without, recorded = model(shape, compile_network=True), model(shape)
    without.on_fit_start()
    _record(recorded)
    steps = {"without": trained_step(without, given)}
    inner = trained_step(recorded, given)

    def step() -> None:
        torch.compiler.cudagraph_mark_step_begin()
        inner()

    steps["recorded"] = step
    step()  # the first call compiles, the second records; `median_seconds` makes another
    found = median_seconds(steps, setting.scale.repetitions, setting.device)
    ratio = Ratio(
        f"AT step, batch {size}, as CUDA graphs",
        size / found["without"],
        size / found["recorded"],
        "images/s",
        "our compiled step",
    )
    return [ratio]


def _record(mpm: MPM) -> None:
    """As `MPM.on_fit_start` compiles, with graphs; the part loss asks for sizes and stays out."""
    network: Any = mpm.network
    network.compile(dynamic=False, mode="reduce-overhead")
    network.forward_with_parts = torch.compile(
        network.forward_with_parts, dynamic=False, mode="reduce-overhead"
    )
    mpm.compile_network = True  # folding is the compiler's


def _against_theirs(setting: Setting, size: int, **settings: Any) -> list[Result]:
    given, shape = batch(size, setting.device, setting.scale.shape), setting.scale.shape
    ours = model(shape, **settings)
    ours.on_fit_start()
    steps = {
        "theirs": trained_step(model(shape), given, theirs=True),
        "ours": trained_step(ours, given),
    }
    found = median_seconds(steps, setting.scale.repetitions, setting.device)
    peaks = dict.fromkeys(steps, 0.0)
    if setting.device == "cuda":
        peaks = {way: peak_growth(step, setting.device) for way, step in steps.items()}
    if not settings:
        setting.step_seconds[size] = found["ours"]
        setting.step_megabytes[size] = peaks["ours"]
    name = f"AT step, batch {size}{', compiled' if settings else ''}"
    rates = (size / found["theirs"], size / found["ours"])
    return [
        Ratio(name, *rates, "images/s", aim=AIM if settings else None),
        memory_ratio(f"{name}: peak memory", peaks["theirs"], peaks["ours"], setting.device),
    ]
