"""Evaluations that are killed, and go on with other numbers of processes."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.modules.tiny_classifier import export_tiny_classifier
from tests.pipeline.commands import run, start
from tests.pipeline.evaluation.evaluation_runs import contents

THREATS = """
model:
  class_path: RobustnessEvaluator
  init_args:
    model: {model}
    threats:
      clean: {{class_path: modules.attacks.threats.Clean}}
      pgd:
        class_path: modules.attacks.threats.PGD
        init_args: {{eps: 0.004, steps: 20, step_size: 0.001}}
      apgd:
        class_path: modules.attacks.threats.APGD
        init_args: {{eps: 0.004, steps: 30}}
      autoattack:
        class_path: modules.attacks.threats.AutoAttack
        init_args: {{eps: 0.004, version: custom, attacks: [apgd-ce, apgd-t]}}
data:
  class_path: RobustnessDataModule
  init_args:
    imagenet: {data}/imagenet
    pinpp: {data}/pinpp
    images: {{clean: 12, pgd: 12, apgd: 12, autoattack: 12}}
    chunk_size: 1
    image_size: 32
    resize: 32
trainer:
  accelerator: cpu
  inference_mode: false
  enable_progress_bar: false
  logger: false
  callbacks:
    - class_path: pipeline.evaluation.robustness_records.RobustnessRecords
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, shapes_root: Path) -> Path:
    folder = export_tiny_classifier(tmp_path_factory.mktemp("model"), num_classes=3, image_size=32)
    path = folder / "evaluate.yaml"
    path.write_text(THREATS.format(model=folder, data=shapes_root))
    return path


def arguments(config: Path, folder: Path, devices: int) -> list[str]:
    given = ["evaluate", "test", f"-c={config}", f"--trainer.default_root_dir={folder}"]
    strategy = "auto" if devices == 1 else "ddp"
    return [*given, f"--trainer.devices={devices}", f"--trainer.strategy={strategy}"]


@pytest.mark.slow
def test_killed_five_times_and_resumed_with_other_numbers_of_processes(
    config: Path, tmp_path: Path
) -> None:
    code, output = run(arguments(config, tmp_path / "whole", 1), timeout=900)
    assert code == 0, output
    rng = random.Random(0)
    cut, seen = tmp_path / "cut", 0
    for devices in (1, 2, 3, 1, 2):
        process = start(arguments(config, cut, devices))
        wanted = min(seen + rng.randint(1, 9), 47)  # records after which it is killed
        while process.poll() is None and len(list(cut.rglob("*.parquet"))) < wanted:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, output
        assert not (cut / "summary.json").exists()
        seen = len(list(cut.rglob("*.parquet")))
        assert seen >= wanted
    code, output = run(arguments(config, cut, 3), timeout=900)
    assert code == 0, output
    assert contents(cut) == contents(tmp_path / "whole")


def test_list_of_options_is_understood_on_the_command_line(config: Path, tmp_path: Path) -> None:
    """A foreign network by its class, an image list, and an early end, all as overrides."""
    folder = tmp_path / "foreign"
    source = {
        "class_path": "timm.create_model",
        "init_args": {"model_name": "resnet10t", "num_classes": 3, "channels": [8, 8, 16, 16]},
        "weights": str(config.parent / "export" / "model.safetensors"),
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
    }
    code, output = run(
        [
            *arguments(config, folder, 1),
            f"--model.init_args.model={json.dumps(source)}",
            '--data.init_args.images={"clean": null, "pgd": 3}',
            "--data.init_args.stop_width=0.9",
        ]
    )
    assert code == 0, output
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["model"] == "timm.create_model"
    clean, pgd = summary["threats"]
    assert clean["early"]
    assert clean["n"] < 12
    assert clean["ci95"][1] - clean["ci95"][0] <= 0.9
    assert pgd["n"] <= 3
    assert summary["subset"]["images"] == 12
    assert (folder / "subset.txt").read_text().count("\n") == 12
