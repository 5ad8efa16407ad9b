"""Commands leave nothing of theirs to others that follow in the same process."""

import logging
import warnings
from pathlib import Path

import pytest
import torch

from pipeline import cli
from pipeline.cli import main
from pipeline.estimate.program import print_estimate
from pipeline.runs.process_state import quiet_lightning, trained_products
from tests.pipeline.commands import stage_args

LIGHTNING = logging.getLogger("lightning.pytorch")


def state() -> tuple[str, int, int]:
    return torch.get_float32_matmul_precision(), LIGHTNING.level, len(warnings.filters)


@pytest.mark.filterwarnings("error")
def test_state_within_and_after() -> None:
    before = state()
    with trained_products(), quiet_lightning():
        assert state()[:2] == ("high", logging.ERROR)
        warnings.warn("not shown", stacklevel=1)
    assert state() == before


def test_state_after_a_failure() -> None:
    before = state()
    with pytest.raises(ZeroDivisionError), trained_products(), quiet_lightning():
        raise ZeroDivisionError
    assert state() == before


def test_commands_restore_it(finished_runs: Path, shapes_root: Path) -> None:
    before = state()
    args = stage_args("stage3_mpm", shapes_root, finished_runs, name="never_made")
    print_estimate(args, devices=1, steps=1)
    assert state() == before
    assert main(stage_args("stage1_segmenter", shapes_root, finished_runs)) is None  # is complete
    assert state() == before


@pytest.mark.parametrize(
    ("command", "precision"),
    [
        ("stage1_segmenter fit", "high"),
        ("stage1_segmenter validate", "highest"),
        ("stage2_pseudolabels predict", "high"),
        ("evaluate test", "highest"),
        ("generalisation test", "highest"),
        ("downstream_detection test", "highest"),
    ],
)
def test_products_are_not_rounded_where_a_model_is_measured(
    command: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_run", lambda *_: torch.get_float32_matmul_precision())
    assert str(main(command.split())) == precision
