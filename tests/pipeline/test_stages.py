"""All stages through the command line, on rendered images."""

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from datamodules.images.imagenet_folder import list_images
from datamodules.labels.label_set import read_labels
from modules.mpm import MPM
from modules.networks.structures import NetworkSettings
from modules.state_dicts.weight_files import read_state
from modules.weights.classifier_folder import load_classifier
from pipeline.cli import main
from pipeline.runs.manifest import Manifest
from tests.pipeline.commands import CHAIN, run, stage_args, start


def test_every_stage_leaves_its_outputs_and_a_complete_manifest(finished_runs: Path) -> None:
    outputs = {
        "stage1_segmenter": ["checkpoints/best.ckpt", "metrics.json", "vocabulary.json"],
        "stage2_pseudolabels": ["labels/00000.parquet", "labels/00004.parquet"],
        "stage3_mpm": ["checkpoints/last.ckpt", "export/model.safetensors", "export/config.json"],
        "evaluate/stage3_mpm": ["summary.json", "records/pgd/00001.parquet"],
    }
    for stage, files in outputs.items():
        manifest = json.loads((finished_runs / stage / "manifest.json").read_text())
        assert manifest["state"] == "complete"
        assert set(files) <= manifest["outputs"].keys()
    metrics = json.loads((finished_runs / "stage1_segmenter" / "metrics.json").read_text())
    assert {"segm_AP", "segm_AP50", "segm_AP_filtered", "segm_AP50_filtered"} <= metrics.keys()
    summary = json.loads((finished_runs / "evaluate/stage3_mpm/summary.json").read_text())
    assert [threat["n"] for threat in summary["threats"]] == [12, 6]


def test_stage_2_labels_every_train_image_once(finished_runs: Path, shapes_root: Path) -> None:
    keys = [row.key for row in read_labels(finished_runs / "stage2_pseudolabels")]
    assert keys == [key for key, _ in list_images(shapes_root / "imagenet" / "train")]


def test_export_equals_the_trained_network(finished_runs: Path) -> None:
    run_folder = finished_runs / "stage3_mpm"
    checkpoint = torch.load(run_folder / "checkpoints/best.ckpt", weights_only=True)
    settings = NetworkSettings(**checkpoint["hyper_parameters"]["network"])
    vocabulary = json.loads((run_folder / "vocabulary.json").read_text())
    object_parts = torch.ones(len(vocabulary["objects"]), len(vocabulary["parts"]) + 1).bool()
    model = MPM(object_parts, settings).eval()
    model.load_state_dict(read_state(run_folder / "checkpoints/best.ckpt"))
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(images)
        torch.testing.assert_close(load_classifier(run_folder)(images), logits)
        plain = timm.create_model(f"local-dir:{run_folder / 'export'}", pretrained=True).eval()
        mean, std = (torch.tensor(plain.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
        torch.testing.assert_close(plain((images - mean) / std), logits)
    assert not any("bypass" in name for name, _ in plain.named_parameters())


def test_complete_run_is_not_repeated_and_changed_settings_are_refused(
    finished_runs: Path, shapes_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = stage_args("stage3_mpm", shapes_root, finished_runs)
    before = (finished_runs / "stage3_mpm/checkpoints/last.ckpt").stat().st_mtime_ns
    assert main(args) is None
    assert "is complete" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"part_loss_weight: 1.0 -> 0.5"):
        main([*args, "--model.init_args.part_loss_weight=0.5"])
    assert (finished_runs / "stage3_mpm/checkpoints/last.ckpt").stat().st_mtime_ns == before


def test_vanilla_has_no_bypass(finished_runs: Path, shapes_root: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_runs / "stage2_pseudolabels", tmp_path / "stage2_pseudolabels")
    overrides = ("--model.init_args.part_loss_weight=0", "--trainer.max_epochs=2")
    cli = main(stage_args("stage3_mpm", shapes_root, tmp_path, *overrides))
    assert cli is not None
    assert cli.model.network.bypass is None
    assert cli.trainer.current_epoch == 2


def test_stage_3_killed_in_mid_epoch_ends_with_the_same_weights(
    finished_runs: Path, shapes_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_runs / "stage2_pseudolabels", tmp_path / "stage2_pseudolabels")
    args = stage_args("stage3_mpm", shapes_root, tmp_path)
    last = tmp_path / "stage3_mpm" / "checkpoints" / "last.ckpt"
    process = start(args)
    steps = 0
    while steps < 12:  # nine steps an epoch: in the second, adversarial one
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
        steps = torch.load(last, weights_only=True)["global_step"] if last.is_file() else 0
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert torch.load(last, weights_only=True)["global_step"] < 27
    code, output = run(args)
    assert code == 0, output
    resumed = torch.load(last, weights_only=True)
    whole = torch.load(
        finished_runs / "stage3_mpm" / "checkpoints" / "last.ckpt", weights_only=True
    )
    assert resumed["global_step"] == whole["global_step"] == 27
    for key in ("state_dict", "current_model_state"):  # averaged and live weights
        for name, value in whole[key].items():
            assert torch.equal(resumed[key][name], value), (key, name)


@pytest.mark.parametrize("stage", ["stage1_segmenter", "stage2_pseudolabels", "stage3_mpm"])
def test_two_processes(stage: str, finished_runs: Path, shapes_root: Path, tmp_path: Path) -> None:
    for name in ("stage1_segmenter", "stage2_pseudolabels"):
        if name != stage:
            shutil.copytree(finished_runs / name, tmp_path / name)
    ddp = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    if stage == "stage3_mpm":
        ddp.append("--trainer.max_epochs=2")
    code, output = run(stage_args(stage, shapes_root, tmp_path, *ddp))
    assert code == 0, output
    assert json.loads((tmp_path / stage / "manifest.json").read_text())["state"] == "complete"
    if stage == "stage2_pseudolabels":
        keys = [row.key for row in read_labels(tmp_path / stage)]
        assert keys == [key for key, _ in list_images(shapes_root / "imagenet" / "train")]


def test_a_dry_run_leaves_nothing_that_counts_as_a_result(
    finished_runs: Path, shapes_root: Path, tmp_path: Path
) -> None:
    dry = "--trainer.fast_dev_run=true"
    for stage in CHAIN:
        folder = f"--trainer.default_root_dir={tmp_path / stage.name}"
        main(stage_args(stage.name, shapes_root, finished_runs, dry, folder))
        left = {path.name for path in (tmp_path / stage.name).rglob("*") if path.is_file()}
        assert not {name for name in left if not name.startswith("composites")}, stage.name
    with pytest.raises(FileNotFoundError, match="make stage1-segmenter first"):
        main(stage_args("stage2_pseudolabels", shapes_root, tmp_path))
    with pytest.raises(ValueError, match="make stage3-mpm"):
        main(stage_args("evaluate", shapes_root, tmp_path))


def test_a_dry_run_does_not_complete_a_run_that_was_cut(
    finished_runs: Path, shapes_root: Path, tmp_path: Path
) -> None:
    run_folder = Path(shutil.copytree(finished_runs / "stage3_mpm", tmp_path / "stage3_mpm"))
    replace(Manifest.read(run_folder), state="running", outputs={}).write(run_folder)
    dry = ("--trainer.fast_dev_run=true", f"--trainer.default_root_dir={run_folder}")
    main(stage_args("stage3_mpm", shapes_root, finished_runs, *dry))
    assert not Manifest.read(run_folder).is_complete
