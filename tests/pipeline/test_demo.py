"""The demo chains the stages with commands that a user could type."""

from pathlib import Path

import pytest

from pipeline import demo as module
from pipeline.demo import PHOTOGRAPHS, SMALL, Demo
from pipeline.runs.stages import Stage
from pipeline.study.commands import StudyData
from tests.pipeline.commands import PROJECT


@pytest.mark.parametrize("configs", [SMALL, PHOTOGRAPHS], ids=["rendered", "photographs"])
def test_commands(
    configs: dict[Stage, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: dict[str, list[str]] = {}
    monkeypatch.setattr(Demo, "stages", lambda self, *commands: ran.update(commands))
    for name in ("show_parts", "show_robustness"):
        monkeypatch.setattr(module, name, lambda *_: None)
    val_parts = tmp_path / "val_parts"
    val_parts.mkdir()
    data = StudyData("some", tmp_path / "imagenet", tmp_path / "pinpp", val_parts)
    Demo(tmp_path / "runs", data, configs).run()
    assert list(ran) == [
        "stage1_segmenter",
        "stage2_pseudolabels",
        "stage3_mpm",
        "stage3_vanilla",
        "evaluate/stage3_mpm",
        "evaluate/stage3_vanilla",
        "report",
    ]
    for name, command in ran.items():
        if name == "report":
            assert f"--pinpp_val={val_parts}" in command
            continue
        stage, _, config, *rest = command
        wanted = next(one for row, one in configs.items() if row.name == stage)
        file = Path(config.removeprefix("-c="))
        assert file == PROJECT / "configs" / stage / f"{wanted}.yaml"
        assert file.is_file()
        assert f"--data.init_args.imagenet={data.imagenet}" in rest
        assert f"--trainer.default_root_dir={tmp_path / 'runs' / name}" in rest
    assert f"--data.init_args.pinpp_val={val_parts}" in ran["stage1_segmenter"]
    assert (
        f"--model.init_args.model={tmp_path / 'runs' / 'stage3_vanilla'}"
        in (ran["evaluate/stage3_vanilla"])
    )
