"""A training that diverges ends in one line, is not complete, and leaves its good checkpoint."""

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from modules.state_dicts.finite import not_finite
from pipeline.cli import main
from pipeline.runs.manifest import Manifest
from tests.pipeline.commands import run, stage_args, start_python

# Environment variable: RANK/STEP whose images are not finite, or with /detectron2 that fails so.
POISON = "TEST_POISON"
LR = "--model.init_args.optimizer.init_args.lr"


class PoisonedBatch(Callback):
    """Makes the images of one step NaN, on one rank, where the environment says so."""

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        place = f"{trainer.global_rank}/{trainer.global_step + 1}"
        if os.environ.get(POISON) == f"{place}/detectron2":
            raise FloatingPointError("Predicted boxes or scores contain Inf/NaN. It diverged.")
        if os.environ.get(POISON) == place:
            batch["image"] = torch.full_like(batch["image"], math.nan, dtype=torch.float32)


@pytest.fixture
def overlay(tmp_path: Path) -> str:
    path = tmp_path / "overlay.yaml"
    callback = {"class_path": f"{PoisonedBatch.__module__}.PoisonedBatch"}
    path.write_text(
        yaml.safe_dump({"trainer": {"callbacks": [callback, {"class_path": "ExportRecogniser"}]}})
    )
    return f"-c={path}"


def last(run_folder: Path) -> dict[str, Any]:
    content = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)
    for key in ("state_dict", "current_model_state"):  # averaged and live weights
        assert not not_finite(content[key])
    return content


def the_error(output: str) -> str:
    """The one line of the error."""
    assert "Traceback" not in output
    (line,) = {line for line in output.splitlines() if line.startswith("error: ")}
    return line


@pytest.mark.parametrize("stage", ["stage1_segmenter", "stage3_mpm"])
def test_a_learning_rate_of_1e12_is_one_line(
    stage: str, finished_runs: Path, shapes_root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / stage
    args = stage_args(stage, shapes_root, finished_runs, f"{LR}=1e12")
    code, output = run([*args, f"--trainer.default_root_dir={folder}"])
    assert code == 1, output
    line = the_error(output)
    assert "training diverged in step" in line
    assert "not finite; begin a new run (another NAME=) with a smaller learning rate" in line
    assert not Manifest.read(folder).is_complete
    assert not (folder / "export").exists()
    assert not (folder / "checkpoints" / "best.ckpt").exists()
    assert last(folder)["global_step"] >= 1


def test_the_last_checkpoint_stays_good_and_the_run_goes_on_from_it(
    overlay: str,
    finished_runs: Path,
    shapes_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    args = stage_args("stage3_mpm", shapes_root, finished_runs, overlay)
    folders = {name: tmp_path / name for name in ("one", "slower")}
    here = {name: f"--trainer.default_root_dir={folder}" for name, folder in folders.items()}
    monkeypatch.setenv(POISON, "0/12")
    with pytest.raises(ValueError, match=r"in step 12 \(epoch 1, .*class_loss and part_loss are n"):
        main([*args, here["one"]])
    good = folders["one"] / "checkpoints" / "last.ckpt"
    assert last(folders["one"])["global_step"] == 11
    assert not Manifest.read(folders["one"]).is_complete
    assert not (folders["one"] / "export").exists()
    monkeypatch.delenv(POISON)
    cli = main([*args, here["slower"], f"--ckpt_path={good}", f"{LR}=0.001"])
    assert cli is not None
    assert cli.trainer.optimizers[0].param_groups[0]["initial_lr"] == 0.001
    assert cli.trainer.optimizers[0].param_groups[0]["lr"] <= 0.001
    for name in folders:
        main([*args, here[name], *([f"{LR}=0.001"] if name == "slower" else [])])
        assert last(folders[name])["global_step"] == 27
        assert Manifest.read(folders[name]).is_complete
        assert (folders[name] / "export" / "model.safetensors").is_file()


def test_an_engine_that_gives_up_is_told_the_same_way(
    overlay: str,
    finished_runs: Path,
    shapes_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(POISON, "0/3/detectron2")
    args = stage_args("stage3_mpm", shapes_root, finished_runs, overlay)
    with pytest.raises(
        ValueError, match=r"in step 2 .*: Predicted .*diverged; begin a new run .*las"
    ):
        main([*args, f"--trainer.default_root_dir={tmp_path / 'run'}"])


def test_one_rank_with_a_bad_batch_stops_both(
    overlay: str, finished_runs: Path, shapes_root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    args = stage_args(
        "stage3_mpm",
        shapes_root,
        finished_runs,
        overlay,
        f"--trainer.default_root_dir={folder}",
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
    )
    process = start_python(["-m", "pipeline", *args], **{POISON: "1/3"})
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    line = the_error(output)
    assert "in step 3 (epoch 0" in line
    assert "class_loss and part_loss are not finite" in line  # known to the rank that was well
    assert last(folder)["global_step"] == 2
    assert not Manifest.read(folder).is_complete


def test_a_checkpoint_that_does_not_exist_is_refused_at_once(
    finished_runs: Path, shapes_root: Path, tmp_path: Path
) -> None:
    args = stage_args("stage3_mpm", shapes_root, finished_runs, "--ckpt_path=nowhere.ckpt")
    with pytest.raises(FileNotFoundError, match=r"ckpt_path nowhere\.ckpt does not exist"):
        main([*args, f"--trainer.default_root_dir={tmp_path}"])


@pytest.mark.parametrize("stage", ["stage1_segmenter", "stage3_mpm"])
def test_a_network_that_answers_nothing_finite_is_not_validated(
    stage: str, finished_runs: Path, shapes_root: Path, tmp_path: Path
) -> None:
    """One update leaves weights that are finite, but too large for any answer."""
    each_step = ("--trainer.check_val_every_n_epoch=null", "--trainer.val_check_interval=1")
    args = stage_args(stage, shapes_root, finished_runs, f"{LR}=1e36", *each_step)
    with pytest.raises(
        ValueError, match=r"diverged in step 1 .*the (detector's|logits).* are not finite; begin a"
    ):
        main([*args, f"--trainer.default_root_dir={tmp_path}"])
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()
    assert not (tmp_path / "metrics.json").exists()
