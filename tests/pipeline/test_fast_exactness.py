"""A fast training is one function of seed and settings too: however cut, over several processes."""

import json
import signal
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from pipeline.cli import main
from pipeline.validation.overfitting_watch import OverfittingWatch
from tests.pipeline.commands import run, stage_args, start
from tests.pipeline.test_stage3_exactness import KILL_AT, _assert_same_state, _last, _steps


class WatchRecorder(Callback):
    """Writes what each process knows of the watch to `watch_<rank>.json`."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        watch = next(c for c in trainer.callbacks if isinstance(c, OverfittingWatch))  # type: ignore[attr-defined]
        known = watch.state_dict() | {"ended": pl_module.one_step_ended}
        file = Path(trainer.default_root_dir) / f"watch_{trainer.global_rank}.json"
        file.write_text(json.dumps(known))


def fast_args(data: Path, runs: Path, folder: Path, *more: str) -> list[str]:
    """Three epochs of 32, 32 and 64 pixels, the first two with one-step attacks; checkpoints at
    each third step."""
    folder.mkdir(parents=True, exist_ok=True)
    recorders = ("test_stage3_exactness.StepRecorder", "test_fast_exactness.WatchRecorder")
    overlay = folder.with_suffix(".yaml")
    callbacks = [{"class_path": f"tests.pipeline.{name}"} for name in recorders]
    content = {
        "model": {
            "init_args": {
                "network": {"image_size": 64},
                "attack": {"clean_epochs": 0, "one_step_until": 0.6},
            }
        },
        "data": {
            "init_args": {
                "image_size": 64,
                "progressive": {"start": 0.5, "until": 0.6},
                "watch_images": 4,
            }
        },
        "trainer": {"callbacks": [*callbacks, {"class_path": "ExportRecogniser"}]},
        "last_checkpoint": {"every_n_train_steps": 3},
    }
    overlay.write_text(yaml.safe_dump(content))
    given = [f"-c={overlay}", f"--trainer.default_root_dir={folder}", *more]
    return stage_args("stage3_mpm", data, runs, *given)


def test_killed_in_mid_epoch_equals_an_uninterrupted_run(
    finished_runs: Path, shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    main(fast_args(shapes_root, finished_runs, whole))
    expected = {entry["step"]: entry for entry in _steps(whole)}
    assert sorted(expected) == list(range(1, 25))  # three epochs of 32 of the 36 images
    again = fast_args(shapes_root, finished_runs, cut)
    monkeypatch.setenv(KILL_AT, "11")  # in the second epoch
    process = start(again)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == -signal.SIGKILL, output
    monkeypatch.delenv(KILL_AT)
    main(again)
    done = _steps(cut)
    assert len(done) > len(expected)
    assert {entry["step"] for entry in done} == expected.keys()
    for entry in done:
        assert entry == expected[entry["step"]]
    one, other = _last(whole), _last(cut)
    for key in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers"):
        _assert_same_state(one[key], other[key], key)
    watches = [json.loads((folder / "watch_0.json").read_text()) for folder in (whole, cut)]
    assert watches[0] == watches[1]
    assert [entry["epoch"] for entry in watches[0]["history"]] == [0, 1]


def test_two_processes_agree_on_what_they_watched(
    finished_runs: Path, shapes_root: Path, tmp_path: Path
) -> None:
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.init_args.batch_size=2"]
    code, output = run(fast_args(shapes_root, finished_runs, tmp_path / "run", *two), timeout=600)
    assert code == 0, output
    ranks = [json.loads((tmp_path / "run" / f"watch_{r}.json").read_text()) for r in (0, 1)]
    assert ranks[0] == ranks[1]
    assert [entry["images"] for entry in ranks[0]["history"]] == [4, 4]
