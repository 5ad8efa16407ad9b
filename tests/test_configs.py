"""Every shipped configuration parses, and every make target expands to a command."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import named_classes
from pipeline.cli import main
from pipeline.runs.stages import STAGES, Stage
from tests.pipeline.commands import PROJECT

DEFAULTS = sorted((PROJECT / "configs").glob("*/defaults.yaml"))
FILES = sorted({*(PROJECT / "configs").glob("*/*.yaml")} - {*DEFAULTS})
OVERLAYS = [path for path in FILES if path.read_text().startswith("# Overlay")]
CONFIGS = [path for path in FILES if path not in OVERLAYS]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_config_parses_with_the_paths_that_make_passes(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = STAGES[config.parent.name]
    paths = [f"--data.init_args.{name}={name}" for name in stage.folders]
    with pytest.raises(SystemExit) as stop:
        main([stage.name, stage.subcommand, f"-c={config}", *paths, "--print_config"])
    assert stop.value.code == 0
    assert "class_path" in capsys.readouterr().out


def test_overlays_are_of_a_known_stage() -> None:
    assert {path.parent.name for path in OVERLAYS} <= {*STAGES, "study"}


def test_every_stage_has_a_small_config() -> None:
    assert {path.parent.name for path in CONFIGS if path.stem == "small"} == set(STAGES)


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_every_stage_has_a_make_target_that_gives_it_its_inputs(stage: Stage) -> None:
    variables = ["CONFIG=small", *(f"{name.upper()}={name}" for name in stage.folders)]
    command = [*stage.target.split(), "-n", *variables]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    text = done.stdout.replace("'", "")  # folders are quoted
    assert f"-m pipeline {stage.name} {stage.subcommand} -c small " in text
    for folder in stage.folders:
        assert f"--data.init_args.{folder}={folder} " in text
    if stage.earlier:
        assert f"--{stage.earlier.setting}=runs/{stage.earlier.stage} " in text
        assert stage.earlier.target == STAGES[stage.earlier.stage].target


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("stage1-segmenter", "-m pipeline stage1_segmenter fit -c small"),
        ("stage2-pseudolabels", "--model.init_args.segmenter=out/stage1_segmenter"),
        ("stage3-mpm", "--data.init_args.labels=out/stage2_pseudolabels"),
        ("evaluate", "--trainer.default_root_dir=out/evaluate/stage3_mpm"),
        ("report", "-m pipeline report --runs out"),
        ("downstream-detection", "--model.init_args.weights=out/downstream_detection"),
        ("estimate", "-m pipeline estimate"),
        ("study", "-m pipeline study --data part_shapes --out out/study"),
        ("demo", "-m pipeline demo"),
        ("check-data", "--decode=true"),
        ("sort-val", "-m pipeline sort_val --imagenet i "),
        ("help", "make stage1-segmenter"),
    ],
)
def test_make_target(target: str, expected: str) -> None:
    variables = [
        "CONFIG=small",
        "IMAGENET=i",
        "PINPP=p",
        "RUNS=out",
        "COCO=c",
        "DEVKIT=k",
        "DECODE=1",
    ]
    result = subprocess.run(
        ["make", "-n", target, *variables], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert expected in result.stdout.replace("'", "")  # every word is quoted


def test_make_evaluates_one_model_into_several_folders() -> None:
    for target, place in (
        ("evaluate", "default_root_dir='out/evaluate/mine'"),
        ("evaluate", "default_root_dir='out/evaluate/mine/generalisation'"),
        ("generalisation", "default_root_dir='out/evaluate/mine/generalisation'"),
        ("human-alignment", "--model 'out/evaluate/mine'"),
    ):
        command = ["make", "-n", target, "CONFIG=small", "IMAGENET=i", "RUNS=out", "HUMANS=h"]
        command.append("NAME=mine")
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
        assert place in done.stdout


def test_make_names_a_missing_variable() -> None:
    result = subprocess.run(
        ["make", "-n", "stage1-segmenter", "PINPP=p"], cwd=PROJECT, capture_output=True, text=True
    )
    assert result.returncode
    assert "set IMAGENET=" in result.stderr


def printed(capsys: pytest.CaptureFixture[str], stage: str, *args: str) -> dict[str, Any]:
    """The whole configuration that a command line resolves to."""
    with pytest.raises(SystemExit) as stop:
        main([stage, STAGES[stage].subcommand, *args, "--print_config"])
    assert stop.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_settings_in_groups_are_overridden_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = PROJECT / "configs" / "stage3_mpm"
    overlays = [f"-c={recipe / name}.yaml" for name in ("resnet50_gelu_at", "eps8", "sv2")]
    arguments = ["--model.init_args.attack.steps=3", "--data.init_args.imagenet=i"]
    config = printed(
        capsys,
        "stage3_mpm",
        *overlays,
        *arguments,
        "--data.init_args.pinpp=p",
        "--data.init_args.labels=l",
    )
    model = config["model"]["init_args"]
    attack = {name: model["attack"][name] for name in ("eps", "steps", "mode")}
    assert attack == {"eps": 8 / 255, "steps": 3, "mode": "eval"}
    assert model["network"]["num_supervised"] == 2
    assert model["network"]["model_args"] == {"act_layer": "gelu"}
    schedule = {name: model["schedule"][name] for name in ("warmup_epochs", "warmup_start")}
    assert schedule == {"warmup_epochs": 2, "warmup_start": 0.005}  # the module's own default
    assert config["best_checkpoint"]["monitor"] == "val/robust_acc"
    assert config["last_checkpoint"]["every_n_train_steps"] == 500
    assert config["ema_decay"] == 0.9998


@pytest.mark.parametrize("recipe", ["resnet50_gelu_at", "resnet50_gelu_at_fast", "lite0", "small"])
def test_head_alignment_keeps_no_average_of_its_one_epoch(
    recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [f"--data.init_args.{name}={name}" for name in STAGES["stage3_mpm"].folders]
    config = printed(capsys, "stage3_mpm", f"-c={recipe}", "-c=init", *folders)
    assert config["trainer"]["max_epochs"] == 1
    assert config["ema_decay"] is None


@pytest.mark.parametrize("recipe", ["small", "lite0", "pinpp_swin_b"])
@pytest.mark.parametrize(
    ("overlay", "classes", "monitor"),
    [
        ("objects", "alone", "val/detected_object_AP"),
        ("objects_and_parts", "beside_parts", "val/segm_AP_filtered"),
    ],
)
def test_whole_objects_overlay_any_recipe(
    recipe: str, overlay: str, classes: str, monitor: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--data.init_args.imagenet=i", "--data.init_args.pinpp=p"]
    config = printed(capsys, "stage1_segmenter", f"-c={recipe}", f"-c={overlay}", *folders)
    assert config["model"]["init_args"]["whole_objects"] == classes
    assert config["best_checkpoint"]["monitor"] == monitor


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("--model.init_args.attack.radius=1/255", "radius"),
        ("--model.init_args.attack.eps=4/0", "4/0"),
        ("--model.init_args.network.num_supervised=two", "two"),
        ("--last_checkpoint.every_n_steps=3", "every_n_steps"),
    ],
)
def test_a_wrong_setting_of_a_group_is_named(
    argument: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = PROJECT / "configs" / "stage3_mpm" / "small.yaml"
    with pytest.raises(SystemExit) as stop:
        main(["stage3_mpm", "fit", f"-c={config}", argument, "--print_config"])
    assert stop.value.code == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize("config", [*FILES, *DEFAULTS, *(PROJECT / "tests/configs").glob("*.yaml")])
def test_configurations_name_classes_barely(config: Path) -> None:
    """So that a file can move without a change to a configuration or a run folder."""
    named = re.findall(r"class_path: ([\w.]+)", config.read_text())
    assert [path for path in named if path.split(".")[0] in ("pipeline", "modules")] == []
    assert [path for path in named if path.startswith(("datamodules", "lightning"))] == []
    for path in named:
        assert "." in path or hasattr(named_classes, path), f"{path} is not imported"
