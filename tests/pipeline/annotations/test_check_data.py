import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from pipeline.annotations.check_data import DataCheck, check_data, main
from tests.datamodules.annotations.annotated import cat_content, make_set, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_set(tmp_path)


def check(root: Path, **more: Path) -> int:
    return main(root / "imagenet", root / "pinpp", workers=1, **more)


def kinds(found: DataCheck) -> Counter[str]:
    return Counter(problem.kind for problem in found.problems)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_sound_data_passes_in_parallel_as_in_one_process(shapes_root: Path) -> None:
    data = (shapes_root / "imagenet", shapes_root / "pinpp", shapes_root / "val_parts")
    alone, parallel = check_data(*data, workers=1), check_data(*data, workers=2)
    assert alone == parallel
    assert not kinds(alone)
    vocabulary = PartVocabulary.from_pinpp(shapes_root / "pinpp", shapes_root / "imagenet")
    annotations = read_annotations(shapes_root / "pinpp", vocabulary)
    train = alone.reports[:3]
    assert [r.name for r in train] == list(vocabulary.objects)
    assert sum(len(r.masks_per_part) for r in train) == vocabulary.num_parts
    masks = sum(len(row.instances) for row in annotations)
    assert sum(sum(r.masks_per_image) for r in train) == masks


def test_warnings_alone_leave_the_exit_status_at_zero(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "imagenet" / "train" / "dog").mkdir()
    shutil.copy(root / "imagenet/train/cat/1.jpg", root / "imagenet/train/dog")
    (root / "pinpp" / "discarded_data.json").write_text(json.dumps([{"file_name": "cat/3.jpg"}]))
    assert check(root) == 0
    printed = capsys.readouterr().out
    assert "warning object_without_annotations" in printed
    assert "warning discarded_image" in printed
    assert f"{root / 'pinpp/json/cat.json'}: image 3: 'cat/3.jpg' is listed" in printed
    assert "training would not be affected" in printed
    (root / "pinpp" / "discarded_data.json").write_text("[")
    assert kinds(check_data(root / "imagenet", root / "pinpp", workers=1)) == {
        "object_without_annotations": 1,
        "unreadable_discarded_list": 1,
    }


def test_problems_are_listed_summed_up_and_mended(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = cat_content()
    content["annotations"][1]["segmentation"]["counts"] = [1, 2]
    content["annotations"][2]["category_id"] = 8
    write(root, content)
    write(root, content, "unicorn")
    (root / "pinpp" / "including" / "lost.txt").write_text("a:b\n")
    (root / "imagenet" / "train" / "cat" / "1.jpg").unlink()
    before = files_of(root / "pinpp")
    assert check(root, json=root / "r.json", fix=root / "fixed") == 1
    assert files_of(root / "pinpp") == before
    outcome = json.loads((root / "r.json").read_text())
    assert outcome["affects_training"]
    expected = {"broken_runs", "unknown_category", "missing_image", "unknown_object"}
    assert expected | {"unknown_relation_part"} <= set(outcome["summary"])
    assert sum(outcome["summary"].values()) == len(outcome["problems"])
    printed = capsys.readouterr().out
    for problem in outcome["problems"]:
        assert f"{problem['kind']} {problem['file']}" in printed
    assert "annotation 11: unreadable segmentation (runs cover 3 of 48 pixels)" in printed
    fixed = sorted(files_of(root / "fixed"))
    assert fixed == ["including/cat.txt", "json/cat.json", "json/flatworm.json"]
    reports = check_data(root / "imagenet", root / "fixed", workers=1)
    assert set(kinds(reports)) == {"image_without_parts", "category_without_masks"}
    vocabulary = PartVocabulary.from_pinpp(root / "fixed", root / "imagenet")
    rows = read_annotations(root / "fixed", vocabulary, root / "imagenet" / "train")
    assert [(row.key, len(row.instances)) for row in rows] == [
        ("cat/2.jpg", 0),
        ("cat/3.jpg", 1),
        ("flatworm/1.jpg", 1),
    ]


def test_val_annotations_must_know_the_parts_of_train(root: Path) -> None:
    (root / "imagenet" / "train").rename(root / "imagenet" / "val")
    (root / "imagenet" / "train").symlink_to(root / "imagenet" / "val")
    val = root / "val_parts"
    content = cat_content()
    content["categories"][1]["name"] = "wing"
    write(val, content)
    found = check_data(root / "imagenet", root / "pinpp", val / "pinpp", workers=1)
    problem = next(p for p in found.problems if p.kind == "unknown_category")
    assert problem.file == str(val / "pinpp" / "json" / "cat.json")
    assert "unknown part 'wing'" in problem.message


def test_folders_for_the_copy_are_refused_before_any_work(root: Path) -> None:
    (root / "full").mkdir()
    (root / "full" / "note.txt").write_text("mine")
    with pytest.raises(ValueError, match="full is not an empty folder"):
        check(root, fix=root / "full")
    with pytest.raises(ValueError, match="lies within"):
        check(root, fix=root / "pinpp" / "fixed")
    assert files_of(root / "full") == {"note.txt": b"mine"}
    (root / "empty").mkdir()
    assert check(root, fix=root / "empty") == 0
    assert files_of(root / "empty").keys() == files_of(root / "pinpp").keys()
    left = {"imagenet", "pinpp", "full", "empty"}
    assert {path.name for path in root.iterdir()} == left


def test_the_command_answers_in_one_line_when_a_folder_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "check_data"]
    given = ["--imagenet", str(tmp_path), "--pinpp", str(tmp_path)]
    ended = subprocess.run([*command, *given], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ")
    assert "set IMAGENET" in ended.stderr
    assert ended.stderr.count("\n") == 1
