"""Runs entries one after the other within a budget of time."""

import gc
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import torch

from benchmarks.gpu_check.entries import Entry
from benchmarks.gpu_check.exact import exact_products
from benchmarks.gpu_check.results import Figure, Report, Result
from benchmarks.gpu_check.scale import Setting
from benchmarks.gpu_check.tables import line
from pipeline.runs.process_state import trained_products

BUDGET = 300.0  # seconds


def run(
    entries: Iterable[Entry], setting: Setting, budget: float, say: Callable[[str], object]
) -> Report:
    """Runs what fits; an entry that raises an error is noted, and the others go on.

    On a card that is slower than the entries assume, those that follow are taken to need more too;
    checks do not count, as most of their time is the CPU's.

    Args:
        entries: in their order.
        setting: handed to each.
        budget: seconds for all of them.
        say: takes a line for every result.
    """
    report, started = Report(), time.perf_counter()
    taken = assumed = 0.0
    for entry in entries:
        began = report.seconds
        left = budget - began
        need = entry.seconds * max(1.0, taken / assumed if assumed else 1.0)
        if left <= 0 or (setting.device == "cuda" and left < need):
            report.skipped[entry.name] = f"{need:.0f} s needed, {max(0, left):.0f} s left"
            say(f"{entry.name}: skipped, {report.skipped[entry.name]}")
            continue
        results = _results(entry, setting, report)
        report.results += results
        report.seconds = time.perf_counter() - started
        if not entry.exact:
            taken, assumed = taken + report.seconds - began, assumed + entry.seconds
        clock = f"[{report.seconds:5.0f} s of {budget:.0f}]"
        for result in results:
            say(f"{clock} {line(result, setting.device)}")
        if entry.name in report.failed:
            say(f"{clock} {entry.name}: FAILED, {report.failed[entry.name]}")
        _clear()
    return report


def _results(entry: Entry, setting: Setting, report: Report) -> list[Result]:
    cuda = setting.device == "cuda"
    try:
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        with exact_products() if entry.exact else trained_products():
            results = list(entry.run(setting))
            if cuda:
                torch.cuda.synchronize()  # an error of a kernel comes late
    except Exception as error:  # whatever goes wrong on an unknown card is a finding
        said = str(error).strip().splitlines() or [""]
        report.failed[entry.name] = f"{type(error).__name__}: {said[0]}"
        return []
    if cuda and not entry.exact:
        peak = torch.cuda.max_memory_allocated() / 2**30
        results.append(Figure(f"{entry.name}: GPU memory at its peak", peak, "GiB"))
    return results


def _clear() -> None:
    """Leaves nothing of an entry to the next: no graph that was compiled, no memory."""
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        with suppress(RuntimeError):  # after an illegal access every call fails, as noted by then
            torch.cuda.empty_cache()
