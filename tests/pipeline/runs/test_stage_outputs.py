import json
from pathlib import Path

import pytest

from datamodules.files.json_files import write_json
from pipeline.runs.manifest import Manifest, mark_complete, require_complete, sha256
from pipeline.runs.metrics import Metrics
from pipeline.runs.settings import differences, refuse_changed_config

CONFIG = {"model": {"init_args": {"eps": 0.1}}, "trainer": {"max_epochs": 3, "devices": 1}}


def manifest(run: Path, **kwargs: object) -> None:
    usual = {"config": CONFIG, "inputs": {"vocabulary": "abc"}}
    Manifest(run.name, **(usual | kwargs)).write(run)  # type: ignore[arg-type]


def test_length_and_place_of_a_run_may_change_but_nothing_else() -> None:
    longer = {**CONFIG, "trainer": {"max_epochs": 9, "devices": 8}}
    assert differences(CONFIG, longer) == []
    other = {**CONFIG, "model": {"init_args": {"eps": 0.2, "new": 1}}}
    assert differences(CONFIG, other) == [
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


@pytest.mark.parametrize("version", [1, 3])
def test_another_format_version_says_what_still_works(version: int, tmp_path: Path) -> None:
    content = {"stage": "x", "state": "complete", "format_version": version}
    if version == 1:
        del content["format_version"]  # as the first version wrote it
    write_json(tmp_path / "manifest.json", content)
    for read in (Manifest.read, Manifest.find, lambda run: refuse_changed_config(run, CONFIG)):
        with pytest.raises(ValueError, match=rf"has format {version}.*reads format 2.*best\.ckpt"):
            read(tmp_path)


def test_a_manifest_that_lacks_an_entry_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", {"stage": "x", "format_version": 2})
    with pytest.raises(ValueError, match="lacks config, git, inputs, outputs, state, versions"):
        Manifest.read(tmp_path)


def test_where_a_class_lies_is_no_setting(tmp_path: Path) -> None:
    def config(*places: str) -> dict[str, object]:
        callbacks = [{"class_path": place, "init_args": {"number": 1}} for place in places]
        return {"model": {"class_path": places[0]}, "trainer": {"callbacks": callbacks}}

    assert differences(config("pipeline.old.Records"), config("pipeline.new.room.Records")) == []
    assert differences(config("pipeline.old.Records"), config("pipeline.old.Others")) == [
        "model.class_path: Records -> Others",
        "trainer.callbacks.0.class_path: Records -> Others",
    ]
    changed = config("a.Records", "a.Others")
    assert len(differences(config("a.Records"), changed)) == 2


def test_metrics_are_read_as_written(tmp_path: Path) -> None:
    assert Metrics.find(tmp_path) is None
    metrics = Metrics({"segm_AP": 0.5, "acc": -1.0}, epoch=3, step=40)
    metrics.write(tmp_path)
    assert Metrics.find(tmp_path) == metrics
    Metrics({"segm_AP": 0.25}).write(tmp_path)
    assert Metrics.find(tmp_path) == Metrics({"segm_AP": 0.25})
    write_json(tmp_path / "metrics.json", {"segm_AP": 0.5})
    with pytest.raises(ValueError, match=r"metrics\.json has format None"):
        Metrics.find(tmp_path)
