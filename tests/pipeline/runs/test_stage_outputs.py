import json
from pathlib import Path

import pytest

from datamodules.files.json_files import write_json
from pipeline.runs.stage_outputs import (
    config_differences,
    mark_complete,
    refuse_changed_config,
    require_complete,
    sha256,
)

CONFIG = {"model": {"init_args": {"eps": 0.1}}, "trainer": {"max_epochs": 3, "devices": 1}}


def manifest(run: Path, **kwargs: object) -> None:
    content = {"state": "running", "config": CONFIG, "inputs": {"vocabulary": "abc"}, "outputs": {}}
    write_json(run / "manifest.json", content | kwargs)


def test_length_and_place_of_a_run_may_change_but_nothing_else() -> None:
    longer = {**CONFIG, "trainer": {"max_epochs": 9, "devices": 8}}
    assert config_differences(CONFIG, longer) == []
    other = {**CONFIG, "model": {"init_args": {"eps": 0.2, "new": 1}}}
    assert config_differences(CONFIG, other) == [
        "model.init_args.eps: 0.1 -> 0.2",
        "model.init_args.new: None -> 1",
    ]


def test_changed_config_is_refused_with_the_difference(tmp_path: Path) -> None:
    refuse_changed_config(tmp_path, CONFIG)
    manifest(tmp_path)
    refuse_changed_config(tmp_path, CONFIG)
    with pytest.raises(ValueError, match=r"eps: 0.1 -> None.*another NAME="):
        refuse_changed_config(tmp_path, {"model": {}, "trainer": {}})


def test_complete_manifest_hashes_the_outputs(tmp_path: Path) -> None:
    manifest(tmp_path)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "00000.parquet").write_bytes(b"rows")
    (tmp_path / "events.out.tfevents.1").write_bytes(b"curve")
    mark_complete(tmp_path)
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert content["state"] == "complete"
    assert content["outputs"] == {
        "labels/00000.parquet": sha256(tmp_path / "labels" / "00000.parquet")
    }


def test_earlier_stage_must_exist_be_complete_and_share_the_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run make x first"):
        require_complete(tmp_path, "make x")
    manifest(tmp_path)
    with pytest.raises(ValueError, match="is running, not complete: run make x"):
        require_complete(tmp_path, "make x")
    manifest(tmp_path, state="complete")
    require_complete(tmp_path, "make x", "abc")
    with pytest.raises(ValueError, match="another part vocabulary"):
        require_complete(tmp_path, "make x", "abd")


def test_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        require_complete(tmp_path, "make x")
