"""Every shipped configuration parses, and every make target expands to a command."""

import subprocess
from pathlib import Path

import pytest

from pipeline.cli import main
from tests.pipeline.commands import PROJECT, SUBCOMMANDS

COMMANDS = SUBCOMMANDS | {"generalisation": "test", "downstream_detection": "fit"}
DEFAULTS = sorted((PROJECT / "configs").glob("*/defaults.yaml"))
FILES = sorted({*(PROJECT / "configs").glob("*/*.yaml")} - {*DEFAULTS})
OVERLAYS = [path for path in FILES if path.read_text().startswith("# Overlay")]
CONFIGS = [path for path in FILES if path not in OVERLAYS]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_config_parses_with_the_paths_that_make_passes(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = config.parent.name
    folders = ("coco",) if stage == "downstream_detection" else ("imagenet", "pinpp")
    paths = [f"--data.init_args.{name}={name}" for name in folders]
    with pytest.raises(SystemExit) as stop:
        main([stage, COMMANDS[stage], f"-c={config}", *paths, "--print_config"])
    assert stop.value.code == 0
    assert "class_path" in capsys.readouterr().out


def test_overlays_are_of_a_known_stage() -> None:
    assert {path.parent.name for path in OVERLAYS} <= {*COMMANDS, "study"}


def test_every_stage_has_a_small_config() -> None:
    assert {path.parent.name for path in CONFIGS if path.stem == "small"} == set(COMMANDS)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("stage1-segmenter", "-c configs/stage1_segmenter/small.yaml"),
        ("stage2-pseudolabels", "--model.init_args.segmenter=out/stage1_segmenter"),
        ("stage3-mpm", "--data.init_args.labels=out/stage2_pseudolabels"),
        ("evaluate", "--trainer.default_root_dir=out/evaluate/stage3_mpm"),
        ("report", "-m pipeline.report --runs out"),
        ("downstream-detection", "--model.init_args.weights=out/downstream_detection"),
        ("estimate", "-m pipeline.estimate"),
        ("study", "-m pipeline.study --data part_shapes --out out/study"),
        ("demo", "-m pipeline.demo"),
        ("help", "make stage1-segmenter"),
    ],
)
def test_make_target(target: str, expected: str) -> None:
    variables = ["CONFIG=small", "IMAGENET=i", "PINPP=p", "RUNS=out", "COCO=c"]
    result = subprocess.run(
        ["make", "-n", target, *variables], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert expected in result.stdout


def test_make_names_a_missing_variable() -> None:
    result = subprocess.run(
        ["make", "-n", "stage1-segmenter", "PINPP=p"], cwd=PROJECT, capture_output=True, text=True
    )
    assert result.returncode
    assert "set IMAGENET=" in result.stderr
