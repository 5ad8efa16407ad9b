"""Settings of the trainer under which a stage would silently be worth nothing are refused."""

from pathlib import Path

import pytest
import torch

from datamodules.files.errors import UserError
from pipeline.cli import main
from pipeline.runs.manifest import Manifest
from tests.pipeline.commands import stage_args

SEGMENTER, LABELS, MPM = "stage1_segmenter", "stage2_pseudolabels", "stage3_mpm"


@pytest.mark.parametrize(
    ("stage", "settings", "message"),
    [
        (SEGMENTER, ["enable_checkpointing=false"], "the next stage reads checkpoints/best"),
        (SEGMENTER, ["precision=bf16-true"], "use bf16-mixed, or 32-true"),
        (SEGMENTER, ["precision=16-true"], "use 16-mixed, or 32-true"),
        (SEGMENTER, ["precision=16-mixed"], "does not exist on the CPU.*: use bf16-mixed or 32-tr"),
        (SEGMENTER, ["barebones=true"], "keeps neither checkpoints nor metrics: leave it out"),
        (SEGMENTER, ["use_distributed_sampler=true"], "would share the images out twice"),
        (SEGMENTER, ["overfit_batches=2"], "overfit_batches=2 trains and measures on a few"),
        (SEGMENTER, ["limit_val_batches=0"], r"limit_val_batches=0: metrics.json would not be of"),
        (MPM, ["limit_val_batches=1"], r"limit_val_batches=1: metrics.json would not be of all"),
        (MPM, ["limit_val_batches=0.5"], r"limit_val_batches=0.5: metrics.json would not be of"),
        (SEGMENTER, ["limit_train_batches=0"], "trains nothing: leave it out"),
        (MPM, ["max_epochs=0"], "trainer.max_epochs=0 trains nothing: give at least 1"),
        (SEGMENTER, ["max_steps=-1"], "neither trainer.max_epochs nor trainer.max_steps says"),
        (MPM, ["inference_mode=true"], "attacks need gradients when stage3_mpm measures"),
        (LABELS, ["limit_predict_batches=1"], r"labels/ would not be of all images: leave it out"),
        (LABELS, ["precision=bf16-true"], "use 32-true"),
        ("evaluate", ["limit_test_batches=2"], "summary.json would not be of all images"),
        ("evaluate", ["precision=bf16-mixed"], "the figures would not be the model's: use 32-true"),
        ("evaluate", ["inference_mode=true"], "attacks need gradients when evaluate measures"),
    ],
)
def test_unsuited_settings_are_refused_before_anything_is_written(
    stage: str, settings: list[str], message: str, shapes_root: Path, tmp_path: Path
) -> None:
    given = [f"--trainer.{setting}" for setting in settings]
    args = stage_args(stage, shapes_root, tmp_path, *given)
    with pytest.raises(UserError, match=message) as caught:
        main(args)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.init_args.detector.head_norm=SyncBN", "head_norm SyncBN .* GPUs alone: give .*=GN"),
        ("trainer.sync_batchnorm=true", "sync_batchnorm=true of several processes .* leave it out"),
    ],
)
def test_synchronised_batch_norm_needs_gpus(
    setting: str, message: str, shapes_root: Path, tmp_path: Path
) -> None:
    two = ("--trainer.devices=2", "--trainer.strategy=ddp")
    with pytest.raises(UserError, match=message):
        main(stage_args(SEGMENTER, shapes_root, tmp_path, f"--{setting}", *two))
    assert not list(tmp_path.iterdir())


def test_callbacks_without_the_one_that_writes_are_refused(
    shapes_root: Path, tmp_path: Path
) -> None:
    given = "--trainer.callbacks=[{class_path: LearningRateMonitor}]"
    with pytest.raises(UserError, match=r"callbacks lacks SegmenterMetrics, which writes .*\+="):
        main(stage_args(SEGMENTER, shapes_root, tmp_path, given))


def test_a_training_that_ran_out_of_time_is_not_complete(
    shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(stage_args(SEGMENTER, shapes_root, tmp_path, "--trainer.max_time=00:00:00:00"))
    assert not Manifest.read(tmp_path / SEGMENTER).is_complete
    assert "ran out of trainer.max_time" in capsys.readouterr().out


def test_one_batch_is_not_a_whole_epoch(shapes_root: Path, tmp_path: Path) -> None:
    steps = {}
    for limit in ("1", "1.0"):
        given = [f"--trainer.limit_train_batches={limit}", "--trainer.max_epochs=1"]
        args = stage_args(SEGMENTER, shapes_root, tmp_path, *given, name=f"limit{limit}")
        cli = main([*args, "--trainer.max_steps=-1", "--trainer.val_check_interval=1"])
        assert cli is not None
        steps[limit] = cli.trainer.global_step
    assert steps["1"] == 1
    assert steps["1.0"] > 1


def test_other_settings_pass(shapes_root: Path, tmp_path: Path) -> None:
    settings = ["detect_anomaly=true", "precision=bf16-mixed", "num_sanity_val_steps=1"]
    given = [f"--trainer.{one}" for one in (*settings, "max_steps=2", "fast_dev_run=1")]
    cli = main(stage_args(SEGMENTER, shapes_root, tmp_path, *given))
    assert cli is not None
    assert torch.isfinite(cli.trainer.callback_metrics["train/loss"])
