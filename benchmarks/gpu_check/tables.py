"""Results as lines, as JSON and as a table in Markdown."""

import math
from typing import Any

from benchmarks.gpu_check.machine import Machine
from benchmarks.gpu_check.results import Check, Figure, Ratio, Report, Result, verdict
from pipeline.drawing.markdown_table import markdown_table


def line(result: Result, device: str) -> str:
    """One line of the screen."""
    if isinstance(result, Check):
        word = "passed" if result.passed else "FAILED"
        return f"{result.name}: {result.value:.1e}, at most {result.tolerance:.0e}: {word}"
    judged = verdict(result.value or 0.0, result.aim, device)
    wanted = "" if result.aim is None else f", aim {result.aim:g}: {judged}"
    if isinstance(result, Ratio):
        numbers = f"{result.theirs:,.1f} | {result.ours:,.1f} {result.unit}"
        return f"{result.name}: {numbers}, ratio {result.value:.2f}{wanted}"
    return f"{result.name}: {_number(result)}{wanted}"


def summary(report: Report, machine: Machine) -> dict[str, Any]:
    """Everything as JSON-able values."""
    checks = {
        r.name: {
            "value": _finite(r.value),
            "tolerance": r.tolerance,
            "passed": r.passed,
            "against": r.against,
        }
        for r in report.results
        if isinstance(r, Check)
    }
    ratios = {
        r.name: {
            "theirs": _finite(r.theirs),
            "ours": _finite(r.ours),
            "ratio": _finite(r.value),
            "unit": r.unit,
            "aim": r.aim,
            "verdict": verdict(r.value, r.aim, machine.device),
            "against": r.against,
        }
        for r in report.results
        if isinstance(r, Ratio)
    }
    figures = {
        r.name: {
            "value": _finite(r.value),
            "unit": r.unit,
            "aim": r.aim,
            "verdict": verdict(r.value or 0.0, r.aim, machine.device),
        }
        for r in report.results
        if isinstance(r, Figure)
    }
    return {
        **vars(machine),
        "seconds": round(report.seconds, 1),
        "passed": report.passed,
        "checks": checks,
        "ratios": ratios,
        "figures": figures,
        "failed": report.failed,
        "skipped": report.skipped,
    }


def markdown(report: Report, machine: Machine) -> str:
    """The table for the README, headed by the card and the versions."""
    rows = []
    for result in report.results:
        if isinstance(result, Ratio):
            numbers = (f"{result.theirs:,.1f}", f"{result.ours:,.1f}", f"{result.value:.2f}")
            names = (result.name, f"{result.against}, {result.unit}")
        elif isinstance(result, Figure):
            names, numbers = (result.name, ""), ("", _number(result), "")
        else:
            continue
        rows.append((*names, *numbers, verdict(_value(result), result.aim, machine.device)))
    checks = [result for result in report.results if isinstance(result, Check)]
    right = sum(check.passed for check in checks)
    versions = f"torch {machine.torch}" + (f", driver {machine.driver}" if machine.driver else "")
    head = (machine.name, "against", "theirs", "ours", "ratio", "aim")
    table = markdown_table(head, rows, numbers=4)
    missing = [*report.failed, *report.skipped]
    return f"{table}\n\n{right} of {len(checks)} checks of correctness passed, {versions}" + (
        f"; not measured: {', '.join(missing)}" if missing else ""
    )


def _finite(value: float | None) -> float | None:
    """None for what JSON cannot say."""
    return value if value is not None and math.isfinite(value) else None


def _value(result: Ratio | Figure) -> float:
    return result.value or 0.0


def _number(figure: Figure) -> str:
    return "not measured" if figure.value is None else f"{figure.value:,.1f} {figure.unit}"
