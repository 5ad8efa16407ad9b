"""A training that was cut goes on with its next step, whatever wrote the checkpoint."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.trainer.connectors import checkpoint_connector

from datamodules.files.errors import UserError
from pipeline.cli import main
from pipeline.runs.manifest import Manifest
from tests.pipeline.commands import stage_args
from tests.pipeline.test_stage3_exactness import StepRecorder


class Training:
    """A tiny stage 1 whose steps are recorded.

    Args:
        data: folder of the data set.
        folder: gets the run.
    """

    def __init__(self, data: Path, folder: Path) -> None:
        names = [f"{StepRecorder.__module__}.StepRecorder", "SegmenterMetrics"]
        overlay = folder / "overlay.yaml"
        callbacks = [{"class_path": name} for name in names]
        overlay.write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
        self.args = stage_args("stage1_segmenter", data, folder, f"-c={overlay}")
        self.run = folder / "stage1_segmenter"
        self.last = self.run / "checkpoints" / "last.ckpt"

    def __call__(self, steps: int, *args: str) -> list[int]:
        """Trains up to so many steps in all: those that were done now."""
        main([*self.args, f"--trainer.max_steps={steps}", *args])
        file = self.run / "steps_0.jsonl"
        done = [json.loads(line)["step"] for line in file.read_text().splitlines()]
        file.unlink()
        assert torch.load(self.last, weights_only=True)["global_step"] == steps
        return done


@pytest.fixture
def train(shapes_root: Path, tmp_path: Path) -> Training:
    return Training(shapes_root, tmp_path)


class Slurm(SLURMEnvironment):
    """SLURM, as far as Lightning asks whether to look for its checkpoints."""

    @staticmethod
    def detect() -> bool:
        return True


@pytest.mark.parametrize("slurm", [False, True])
def test_a_run_that_was_requeued_goes_on_from_where_it_was(
    slurm: bool, train: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    if slurm:
        monkeypatch.setattr(checkpoint_connector, "SLURMEnvironment", Slurm)
    assert train(2) == [1, 2]
    shutil.copy(train.last, train.run / "hpc_ckpt_1.ckpt")
    assert train(4) == [3, 4]
    assert train(5) == [5]  # what SLURM's signal left is older now
    shutil.move(train.last, train.run / "hpc_ckpt_2.ckpt")
    shutil.copy(train.run / "hpc_ckpt_1.ckpt", train.last)
    os.utime(train.run / "hpc_ckpt_2.ckpt", (0, 0))  # as copies of a folder may have it
    assert train(6) == [6]
    config = yaml.safe_load((train.run / "config.yaml").read_text())
    assert config["ckpt_path"] is None  # elsewhere the same settings begin anew


@pytest.mark.parametrize("damage", ["cut", "text", "weights"])
def test_a_damaged_checkpoint_is_named_and_another_can_be_given(
    damage: str, train: Training
) -> None:
    assert train(2) == [1, 2]
    good = train.last.read_bytes()
    if damage == "weights":
        torch.save({"weight": torch.ones(2)}, train.last)
    else:
        train.last.write_bytes(good[: len(good) // 2] if damage == "cut" else b"no checkpoint")
    message = r"last\.ckpt holds no state of a training to go on from \(.+\): move it away and"
    with pytest.raises(UserError, match=message):
        train(4)
    with pytest.raises(UserError, match=message):
        train(4, f"--ckpt_path={train.last}")
    train.last.unlink()
    best = train.run / "checkpoints" / "best.ckpt"
    assert train(4, f"--ckpt_path={best}") == [3, 4]


def test_checkpoints_lie_in_the_run_folder_with_any_logger(train: Training) -> None:
    logger = ("--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={train.run / 'curves'}")
    assert train(2, *logger) == [1, 2]
    assert (train.run / "curves" / "lightning_logs" / "version_0" / "metrics.csv").is_file()
    outputs = Manifest.read(train.run).outputs
    assert {"checkpoints/best.ckpt", "checkpoints/last.ckpt"} <= outputs.keys()
    assert train(4, *logger) == [3, 4]
    config = yaml.safe_load((train.run / "config.yaml").read_text())
    assert config["best_checkpoint"]["dirpath"] is config["last_checkpoint"]["dirpath"] is None
