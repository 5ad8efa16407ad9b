"""The recipes for photographs start from real weights, train a step and leave what comes next."""

from pathlib import Path

import pytest
import torch

from modules.part_segmenter import PartSegmenter
from modules.weights.classifier_folder import load_classifier
from modules.weights.named_models import PACKAGED
from pipeline.cli import PipelineCLI, main
from tests.pipeline.commands import PROJECT
from tests.pipeline.commands import stage_args as tiny_args

pytest.importorskip(
    PACKAGED["efficientnet_lite0"].package, reason="the extra `pretrained` is not installed"
)


def run(stage: str, data: Path, runs: Path, *args: str) -> PipelineCLI:
    """A stage with its `lite0.yaml`, on images of 64 pixels."""
    folders = [f"--data.init_args.{name}={data / name}" for name in ("imagenet", "pinpp")]
    command = [stage, "fit", f"-c={PROJECT / 'configs' / stage / 'lite0.yaml'}", *folders]
    here = ["--trainer.accelerator=cpu", f"--trainer.default_root_dir={runs / stage}"]
    cli = main([*command, *here, "--data.init_args.num_workers=0", *args])
    assert cli is not None
    loss = cli.trainer.callback_metrics["train/loss"]
    assert torch.isfinite(loss)
    return cli


def test_the_chain_from_real_weights(shapes_root: Path, tmp_path: Path) -> None:
    sizes = [f"--model.init_args.detector.{name}_size=64" for name in ("min", "max")]
    step = ["--trainer.max_steps=1", "--trainer.val_check_interval=1"]
    batch = "--data.init_args.batch_size=4"
    segmenter = run("stage1_segmenter", shapes_root, tmp_path, *sizes, *step, batch)
    assert isinstance(segmenter.model, PartSegmenter)
    assert segmenter.model.network.backbone.normalisation.values == ([0.5] * 3, [0.5] * 3)
    assert main(tiny_args("stage2_pseudolabels", shapes_root, tmp_path)) is not None
    sizes = ["--model.init_args.network.image_size=64", "--data.init_args.image_size=64"]
    short = ["--trainer.max_epochs=1", "--model.init_args.schedule.warmup_epochs=0"]
    short += ["--trainer.check_val_every_n_epoch=1", "--data.init_args.val_images=8"]
    labels = f"--data.init_args.labels={tmp_path / 'stage2_pseudolabels'}"
    run("stage3_mpm", shapes_root, tmp_path, *sizes, *short, labels)
    classifier = load_classifier(tmp_path / "stage3_mpm")
    assert classifier.normalise.values == ([0.5] * 3, [0.5] * 3)
