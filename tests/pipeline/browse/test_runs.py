"""Which folders are taken, what is refused before any work, and how a stopped page goes on."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from datamodules.files.errors import MissingInputError, UserError
from pipeline.__main__ import main
from pipeline.browse.build import browse
from pipeline.browse.claim import page_folder
from pipeline.browse.drawn import Drawn
from pipeline.browse.evaluated import find_evaluation
from pipeline.browse.paint import Painter
from pipeline.browse.subjects import Subject
from tests.pipeline.browse.conftest import content_of

FEW: dict[str, Any] = {"images": 3, "train_images": 2, "segment": False, "threat": "pgd"}


def pictures(page: Path) -> dict[str, tuple[int, bytes]]:
    """Time of the last change and content of all pictures."""
    files = sorted((page / "images").iterdir())
    return {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def test_the_three_kinds_of_folders(finished_runs: Path, evaluation: Path) -> None:
    own = finished_runs / "evaluate" / "stage3_mpm"
    assert find_evaluation(own) == own
    assert find_evaluation(finished_runs / "stage3_mpm") == own
    assert find_evaluation(finished_runs) == own
    assert page_folder(own) == finished_runs / "browse" / "stage3_mpm"
    assert page_folder(own / "subsets" / "a") == finished_runs / "browse" / "stage3_mpm_subsets_a"
    shutil.copytree(evaluation, evaluation.parent / "other")
    runs = evaluation.parent.parent
    with pytest.raises(UserError, match=rf"several .*\(other, stage3_mpm\).* RUN={runs}/evaluate"):
        find_evaluation(runs)
    shutil.rmtree(evaluation.parent / "other")


def test_a_missing_evaluation_says_what_to_run(finished_runs: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"gone is not a folder: set RUN= to .*evaluate"):
        find_evaluation(tmp_path / "gone")
    with pytest.raises(MissingInputError, match="holds no evaluation: run make evaluate first"):
        find_evaluation(tmp_path)
    run = tmp_path / "stage3_mpm"
    run.mkdir()
    shutil.copy(finished_runs / "stage3_mpm" / "manifest.json", run)
    with pytest.raises(MissingInputError, match=f"run make evaluate MODEL={run} first"):
        find_evaluation(run)
    with pytest.raises(UserError, match="stage2_pseudolabels is a run of another stage"):
        find_evaluation(finished_runs / "stage2_pseudolabels")


def test_the_command_says_it_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["browse", f"--run={tmp_path}", "--serve"]) == 1
    said = capsys.readouterr().err
    assert said == f"error: {tmp_path} holds no evaluation: run make evaluate first\n"


def test_what_does_not_fit_is_refused_before_any_picture(
    evaluation: Path, tmp_path: Path, shapes_root: Path
) -> None:
    out = tmp_path / "page"
    with pytest.raises(UserError, match=r"images=0 must be 1 or more"):
        browse(evaluation, images=0, out=out)
    with pytest.raises(UserError, match=r"port=70000 must be in"):
        browse(evaluation, port=70000, out=out)
    with pytest.raises(UserError, match=r"knows no threat aa, only clean, pgd: choose THREAT="):
        browse(evaluation, threat="aa", out=out)
    with pytest.raises(UserError, match=r"clean changes no image"):
        browse(evaluation, threat="clean", out=out)
    with pytest.raises(MissingInputError, match="elsewhere"):
        browse(evaluation, imagenet=tmp_path / "elsewhere", out=out)
    changed = tmp_path / "changed"
    shutil.copytree(evaluation, changed)
    path = changed / "records" / "settings.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"resize": 40}))
    with pytest.raises(UserError, match=r"attacked other images .*resize: 40 -> 32"):
        browse(changed, out=out)
    path.write_text(json.dumps(settings | {"files": {"images": "0" * 64}}))
    with pytest.raises(UserError, match=r"attacked other images .*files: {'images': '0{64}'} -> "):
        browse(changed, out=out)
    del settings["files"]  # of an earlier version, as below
    path.write_text(json.dumps(settings | {"model": "0" * 64}))
    with pytest.raises(UserError, match=r"has other weights than the model that .*changed"):
        browse(changed, out=out)
    record = next((changed / "records" / "pgd").glob("*.parquet"))
    record.write_bytes(b"PAR1")
    with pytest.raises(UserError, match=rf"{record} is damaged .*run make evaluate again"):
        browse(changed, out=out)
    assert not out.exists()


def test_a_stopped_page_goes_on(
    evaluation: Path,
    shapes_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    browse(evaluation, out=whole, **FEW)
    drawn: list[str] = []
    draw = Painter.draw

    def stopped(self: Painter, subject: Subject) -> Drawn:
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(subject.key)
        return draw(self, subject)

    with monkeypatch.context() as patch:
        patch.setattr(Painter, "draw", stopped)
        with pytest.raises(KeyboardInterrupt):
            browse(evaluation, out=out, **FEW)
    assert "2 of 5 images are drawn, the same command goes on" in (out / "index.html").read_text()
    assert [one["drawn"]["key"] for one in content_of(out)["images"]] == drawn
    before = pictures(out)
    capsys.readouterr()
    browse(evaluation, out=out, **FEW)
    after = pictures(out)
    assert {name: after[name] for name in before} == before
    assert content_of(out) == content_of(whole)
    same = {name: content for name, (_, content) in pictures(whole).items()}
    assert {name: content for name, (_, content) in after.items()} == same
    address = (out / "index.html").as_uri()
    said = capsys.readouterr().out.strip()
    assert said.endswith(f"open {address} in a browser, it needs no network")
    # what another attack gives is no part of this page
    with pytest.raises(
        UserError, match=r"was made another way \(attack.*give the page another OUT"
    ):
        browse(evaluation, out=out, **FEW | {"threat": None})
    assert pictures(out) == after
    # masks that are known now are drawn, the other images stay
    browse(evaluation, out=out, pinpp_val=shapes_root / "val_parts", **FEW)
    images = [one["drawn"] for one in content_of(out)["images"]]
    assert all("human" in one["pictures"] and one["iou"] for one in images)
    train = [file for one in images if one["split"] == "train" for file in one["pictures"].values()]
    assert train
    now = pictures(out)
    assert all(now[Path(file).name] == after[Path(file).name] for file in train)
    # a later call that does not name them takes none away
    browse(evaluation, out=out, **FEW)
    assert pictures(out) == now
