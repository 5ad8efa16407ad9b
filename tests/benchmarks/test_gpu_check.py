"""The script that is run before GPUs are rented, at its small size on the CPU."""

import json
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.gpu_check import __main__ as program
from benchmarks.gpu_check import runner
from benchmarks.gpu_check.entries import ENTRIES, Entry
from benchmarks.gpu_check.machine import Machine
from benchmarks.gpu_check.ratios.utilisation import union
from benchmarks.gpu_check.results import Check, Ratio, Result, verdict
from benchmarks.gpu_check.runner import run
from benchmarks.gpu_check.scale import SMALL, Setting
from modules.attacks import folding
from modules.losses import part_focal

COMPILED = [entry.name for entry in ENTRIES if entry.compiles]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def called(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    """Exit status and what the last line says."""
    status = program.main([*options, "--budget", "100000"])
    return status, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_all_checks_pass_and_everything_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = called(capsys, "--markdown")
    assert found["failed"] == found["skipped"] == {}
    assert [name for name, check in found["checks"].items() if not check["passed"]] == []
    assert status == 0
    assert (found["device"], found["name"], found["driver"]) == ("cpu", "CPU", None)
    assert len(found["ratios"]) >= 7
    for ratio in found["ratios"].values():
        more = ratio["unit"] == "images/s"
        ways = (ratio["ours"], ratio["theirs"]) if more else (ratio["theirs"], ratio["ours"])
        assert ratio["ratio"] == pytest.approx(ways[0] / ways[1])
        assert ratio["verdict"] == ("no aim" if ratio["aim"] is None else "not measured")


@pytest.mark.slow
def test_what_is_compiled(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = called(capsys, "--only", *COMPILED)
    assert (status, found["failed"]) == (0, {})


def test_a_wrong_part_loss_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = part_focal._chunk_loss

    def wrong(*given: Any) -> Tensor:
        return 1.01 * right(*given)

    monkeypatch.setattr(part_focal, "_chunk_loss", wrong)
    status, found = called(capsys, "--only", "check_part_loss")
    assert status == 1
    assert not found["checks"]["part loss, float32"]["passed"]
    assert found["checks"]["part loss, float32: gradients"]["passed"]


def test_a_wrong_fold_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = folding._fused

    def wrong(*pair: Any) -> tuple[Tensor, Tensor]:
        weight, bias = right(*pair)
        return weight, torch.zeros_like(bias)

    monkeypatch.setattr(folding, "_fused", wrong)
    status, found = called(capsys, "--only", "check_folded_norms")
    assert status == 1
    assert not found["checks"]["folded norms: logits"]["passed"]


def test_an_entry_that_raises_is_noted_and_the_others_go_on() -> None:
    def broken(_: Setting) -> list[Result]:
        raise RuntimeError("out of memory\nand a long trace")

    entries = [Entry("one", broken, 1), Entry("two", lambda _: [Check("fine", 0, 0, "0")], 1)]
    said: list[str] = []
    report = run(entries, Setting("cpu", SMALL), 1000, said.append)
    assert report.failed == {"one": "RuntimeError: out of memory"}
    assert [result.name for result in report.results] == ["fine"]
    assert not report.passed
    assert any("one: FAILED" in text for text in said)


def test_what_does_not_fit_the_budget_is_skipped() -> None:
    report = run([Entry("one", lambda _: [], 1)], Setting("cpu", SMALL), 0, lambda _: None)
    assert list(report.skipped) == ["one"]


def test_a_slow_card_leaves_out_what_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("synchronize", "reset_peak_memory_stats", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda: 0)
    clock = [0.0]
    monkeypatch.setattr(runner, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def slow(_: Setting) -> list[Result]:
        clock[0] += 30
        return []

    entries = [Entry("one", slow, 10), Entry("two", slow, 40), Entry("three", slow, 20)]
    report = run(entries, Setting("cuda", SMALL), 100, lambda _: None)
    assert report.skipped == {"two": "120 s needed, 70 s left"}
    assert report.seconds == 60


def test_a_card_that_is_broken_by_an_entry_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def illegal() -> None:
        raise RuntimeError("CUDA error: an illegal memory access [/x] was encountered")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("synchronize", "reset_peak_memory_stats", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, illegal)
    entries = [Entry(name, lambda _: [], 1) for name in ("one", "two")]
    report = run(entries, Setting("cuda", SMALL), 100, lambda _: None)
    assert list(report.failed) == ["one", "two"]


def test_judgements() -> None:
    assert not Check("", math.nan, 1, "").passed
    assert Ratio("", 6, 2, "ms").value == 3
    assert Ratio("", 2, 6, "images/s").value == 3
    assert verdict(2.4, 2.5, "cuda") == "missed"
    assert verdict(2.5, 2.5, "cuda") == "met"
    assert verdict(9, 2.5, "cpu") == "not measured"
    assert Machine.of_this().device == "cpu"


def test_kernels_that_overlap_count_once() -> None:
    assert union([(5, 6), (0, 2), (1, 3), (1, 2)]) == 4
