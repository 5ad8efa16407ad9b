"""Stage 3 is one function of seed and settings: however cut, over however many processes."""

import json
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from pipeline.cli import main
from tests.pipeline.commands import run, stage_args, start

KILL_AT = "TEST_KILL_AT_STEP"  # environment variable of the processes that are to die
HERE = "tests.pipeline.test_stage3_exactness"


class StepRecorder(Callback):
    """Appends images and loss of each step to `steps_<rank>.jsonl` and may kill the process."""

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        assert isinstance(outputs, Mapping)
        loss = trainer.strategy.reduce(outputs["loss"].detach().clone(), reduce_op="mean")
        entry = {"step": trainer.global_step, "keys": batch["key"], "loss": float(loss)}
        file = Path(trainer.default_root_dir) / f"steps_{trainer.global_rank}.jsonl"
        with file.open("a") as stream:
            stream.write(json.dumps(entry) + "\n")
        # Checkpoints of this step come after all other callbacks: its work is lost.
        if os.environ.get(KILL_AT) == str(trainer.global_step):
            os.killpg(os.getpgrp(), signal.SIGKILL)


class FixedStatistics(Callback):
    """Batch norm by its running statistics: each image passes the network on its own."""

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        for module in pl_module.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def _overlay(path: Path, every: int, *callbacks: str) -> Path:
    """Settings with an averaging of weights, checkpoints every so many steps and callbacks."""
    added = [{"class_path": f"{HERE}.{name}"} for name in callbacks]
    content = {
        "trainer": {"callbacks": [*added, {"class_path": "ExportRecogniser"}]},
        "last_checkpoint": {"every_n_train_steps": every},
        "ema_decay": 0.9,
    }
    path.write_text(yaml.safe_dump(content))
    return path


def _steps(run_folder: Path, rank: int = 0) -> list[dict[str, Any]]:
    lines = (run_folder / f"steps_{rank}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _last(run_folder: Path) -> dict[str, Any]:
    return torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)


def _assert_same_state(one: Any, other: Any, where: str = "") -> None:
    """Bitwise equality of nested states."""
    if isinstance(one, Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            _assert_same_state(value, other[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, (value, twin) in enumerate(zip(one, other, strict=True)):
            _assert_same_state(value, twin, f"{where}/{index}")
    else:
        assert one == other, where


def test_killed_three_times_at_random_equals_an_uninterrupted_run(
    finished_runs: Path, shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = _overlay(tmp_path / "overlay.yaml", 2, "StepRecorder")
    args = stage_args("stage3_mpm", shapes_root, finished_runs, f"-c={overlay}")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    main([*args, f"--trainer.default_root_dir={whole}"])
    expected = {entry["step"]: entry for entry in _steps(whole)}
    assert sorted(expected) == list(range(1, 28))  # three epochs of nine steps
    kills = sorted(np.random.default_rng(4).choice(np.arange(2, 27), 3, replace=False).tolist())
    again = [*args, f"--trainer.default_root_dir={cut}"]
    for step in kills:
        monkeypatch.setenv(KILL_AT, str(step))
        process = start(again)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, output
        assert _steps(cut)[-1]["step"] == step
    monkeypatch.delenv(KILL_AT)
    code, output = run(again)
    assert code == 0, output
    done = _steps(cut)
    assert len(done) > len(expected)  # steps after the last checkpoint were done again
    assert {entry["step"] for entry in done} == expected.keys()
    for entry in done:  # order of the images and loss, also of what was done twice
        assert entry == expected[entry["step"]]
    one, other = _last(whole), _last(cut)
    assert one["global_step"] == other["global_step"] == 26
    # averaged and live weights, momentum, schedule
    for key in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers"):
        _assert_same_state(one[key], other[key], key)


@pytest.mark.parametrize(
    ("eps", "compiled"),
    [
        pytest.param(0.0, False, id="clean"),
        pytest.param(4 / 255, False, id="adversarial"),
        pytest.param(
            4 / 255,
            True,
            id="compiled",  # some minutes of compilation
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(
                    shutil.which("c++") is None, reason="torch.compile needs a C++ compiler here"
                ),
            ],
        ),
    ],
)
def test_two_processes_equal_one_with_the_same_global_batch(
    eps: float, compiled: bool, finished_runs: Path, shapes_root: Path, tmp_path: Path
) -> None:
    """Three steps of MPM over gloo; where asked for, the two processes run compiled code.

    Batch norm uses its running statistics, since synchronised statistics exist on GPUs only.
    What is left to differ is the order in which float32 gradients are summed (two means of two
    images, or one of four), and the signs that the attack takes of gradients that are about 0.
    """
    overlay = _overlay(tmp_path / "overlay.yaml", 1, "StepRecorder", "FixedStatistics")
    settings = [
        f"-c={overlay}",
        f"--model.init_args.attack.eps={eps}",
        "--model.init_args.attack.clean_epochs=0",
        "--model.init_args.schedule.warmup_epochs=0",
        "--trainer.max_steps=3",
    ]
    folders = {processes: tmp_path / str(processes) for processes in (1, 2)}
    for processes, folder in folders.items():
        args = stage_args(
            "stage3_mpm",
            shapes_root,
            finished_runs,
            *settings,
            f"--trainer.default_root_dir={folder}",
            f"--trainer.devices={processes}",
            f"--trainer.strategy={'ddp' if processes > 1 else 'auto'}",
            f"--data.init_args.batch_size={4 // processes}",
            f"--model.init_args.compile_network={str(compiled and processes > 1).lower()}",
        )
        if processes == 1:
            main(args)
        else:
            code, output = run(args, timeout=1200)
            assert code == 0, output
    single = _steps(folders[1])
    shared = list(zip(_steps(folders[2], 0), _steps(folders[2], 1), strict=True))
    assert len(single) == len(shared) == 3
    for alone, ranks in zip(single, shared, strict=True):
        assert sorted(alone["keys"]) == sorted(ranks[0]["keys"] + ranks[1]["keys"])
        assert ranks[0]["loss"] == ranks[1]["loss"] == pytest.approx(alone["loss"], rel=1e-5)
    one, other = (_last(folder) for folder in folders.values())
    for key in ("state_dict", "current_model_state"):
        for name, value in one[key].items():
            torch.testing.assert_close(
                other[key][name], value, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
            )
