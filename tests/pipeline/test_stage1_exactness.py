"""Stage 1 is one function of seed and settings, the regions that it samples included."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from pipeline.cli import main
from tests.pipeline.commands import stage_args

STEPS = 9  # four an epoch


class StepLosses(Callback):
    """Keeps the loss of every step, and fails before the step `fail_before`, from 1."""

    fail_before: ClassVar[int] = 0

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step + 1 == self.fail_before:
            raise RuntimeError("the machine is lost")

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        assert isinstance(outputs, Mapping)
        self.losses[trainer.global_step] = float(outputs["loss"])


def losses(args: list[str], folder: Path) -> dict[int, float]:
    """Losses of the steps of one start of stage 1."""
    names = ["SegmenterMetrics", f"{StepLosses.__module__}.StepLosses"]
    overlay = folder.with_suffix(".yaml")
    callbacks = [{"class_path": name} for name in names]
    overlay.write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    cli = main([*args, f"-c={overlay}", f"--trainer.default_root_dir={folder}"])
    assert cli is not None
    (recorder,) = (one for one in cli.trainer.callbacks if isinstance(one, StepLosses))
    return recorder.losses


def test_a_run_that_goes_on_in_mid_epoch_equals_an_uninterrupted_one(
    shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = stage_args("stage1_segmenter", shapes_root, tmp_path, f"--trainer.max_steps={STEPS}")
    expected = losses(args, tmp_path / "whole")
    assert [*expected] == [*range(1, STEPS + 1)]
    monkeypatch.setattr(StepLosses, "fail_before", 7)
    with pytest.raises(RuntimeError, match="the machine is lost"):
        losses(args, tmp_path / "cut")
    monkeypatch.setattr(StepLosses, "fail_before", 0)
    torch.rand(5)  # the generators are elsewhere than they would be
    assert losses(args, tmp_path / "cut") == {step: expected[step] for step in (7, 8, 9)}
    one, other = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("whole", "cut")
    )
    for key in ("state_dict", "current_model_state"):  # averaged and live weights
        assert all(torch.equal(other[key][name], value) for name, value in one[key].items())
