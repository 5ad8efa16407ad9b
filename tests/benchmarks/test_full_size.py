import json
from pathlib import Path

import pytest
from pycocotools.coco import COCO

from benchmarks.full_size.data import make_data
from benchmarks.full_size.recipes import RECIPES, Recipe
from benchmarks.full_size.runs import cut_and_go_on, refusal, step_times, trained_on, watch
from benchmarks.full_size.step_marks import FILE, Mark, read_marks
from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.detection.coco_boxes import CocoBoxes, category_names
from datamodules.files.errors import UserError
from pipeline.annotations.check_data import check_data, result
from pipeline.cli import main
from pipeline.labelling.import_labels import import_labels
from pipeline.runs.stages import MPM
from tests.pipeline.commands import PROJECT

CATEGORIES, PARTS, IMAGES = 4, 13, 3
TINY = Recipe(MPM, ("small", PROJECT / "tests" / "configs" / "stage3_mpm.yaml"))


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data/` of a few categories, and `labels/` made of its annotations."""
    root = tmp_path_factory.mktemp("full_size")
    make_data(root / "data", categories=CATEGORIES, parts=PARTS, images=IMAGES)
    data = root / "data"
    import_labels(data / "pinpp", root / "labels", "coco", data / "imagenet", data / "pinpp")
    return root


def test_synthetic_annotations_have_no_problem(full_size: Path) -> None:
    data = full_size / "data"
    outcome = result(check_data(data / "imagenet", data / "pinpp", workers=1), 1.0)
    assert outcome["problems"] == []


def test_synthetic_annotations_are_read_as_they_were_asked_for(full_size: Path) -> None:
    data = full_size / "data"
    vocabulary = PartVocabulary.from_pinpp(data / "pinpp", data / "imagenet")
    assert (len(vocabulary.objects), vocabulary.num_parts) == (CATEGORIES, PARTS)
    rows = read_annotations(data / "pinpp", vocabulary, data / "imagenet" / "train")
    files = [json.loads(file.read_text()) for file in (data / "pinpp/json").glob("*.json")]
    assert len(rows) == CATEGORIES * IMAGES
    assert sum(len(row.instances) for row in rows) == sum(len(f["annotations"]) for f in files)
    parts = {row.key: {instance.part for instance in row.instances} for row in rows}
    assert all(parts[row.key] == set(vocabulary.parts_of(row.label)) for row in rows)
    assert vocabulary.inclusions


def test_synthetic_coco_is_read_as_pycocotools_reads_it(full_size: Path) -> None:
    coco = full_size / "data" / "coco"
    theirs = COCO(coco / "annotations" / "instances_val2017.json")
    names = category_names(coco, "val2017")
    ours = CocoBoxes.read(coco, "val2017", names)
    assert names == [one["name"] for one in theirs.loadCats(theirs.getCatIds())]
    assert len(ours.boxes) == len(theirs.getAnnIds()) > 0


def test_data_that_were_made_otherwise_are_refused(full_size: Path) -> None:
    with pytest.raises(UserError, match="give another --out"):
        make_data(full_size / "data", categories=CATEGORIES, parts=PARTS, images=IMAGES + 1)
    with pytest.raises(UserError, match="give 4 to 36"):
        make_data(full_size / "other", categories=CATEGORIES, parts=37)


def test_a_recipe_is_cut_and_goes_on(full_size: Path) -> None:
    run = full_size / "tiny"
    row = cut_and_go_on(TINY, full_size / "data", full_size, run)
    assert row["state"] == "went on", (run / "log.txt").read_text()
    assert [(mark.event, mark.step) for mark in read_marks(run)] == [
        ("begins", 0),
        ("ends", 1),
        ("begins", 1),
        ("begins", 1),
        ("ends", 2),
    ]
    assert len(row["step_seconds"]) == 2
    assert 0 < row["peak_gb"] < 24


def _mark(event: str, step: int, at: float = 0.0) -> Mark:
    return Mark(event, step, at, at / 2, 1)  # type: ignore[arg-type]


def test_only_the_second_batch_counts_as_going_on() -> None:
    cut = [_mark("begins", 0), _mark("ends", 4), _mark("begins", 4)]
    assert trained_on(cut, [_mark("begins", 4), _mark("ends", 8)], updates=4)
    assert not trained_on(cut, [_mark("begins", 0), _mark("ends", 4)], updates=4)
    assert not trained_on(cut, [_mark("begins", 4)], updates=4)
    assert not trained_on(cut, [], updates=4)
    assert not trained_on([], [_mark("begins", 4), _mark("ends", 8)], updates=4)


def test_steps_that_were_cut_have_no_time() -> None:
    marks = [_mark("begins", 0, 1.0), _mark("ends", 1, 4.0), _mark("begins", 1, 6.0)]
    assert step_times(marks) == [(3.0, 1.5)]
    assert step_times([*marks, _mark("begins", 1, 9.0), _mark("ends", 2, 10.0)])[1:] == [(1.0, 0.5)]


def test_a_line_that_is_being_written_is_no_mark(tmp_path: Path) -> None:
    whole = '{"event": "ends", "step": 1, "wall": 2.0, "cpu": 1.0, "parameters": 3}\n'
    (tmp_path / FILE).write_text(whole + whole[:20])
    assert read_marks(tmp_path) == [Mark("ends", 1, 2.0, 1.0, 3)]


def test_what_the_machine_has_no_room_for_is_not_begun(tmp_path: Path) -> None:
    assert refusal(Recipe(MPM, (), memory=0.0, disk=0.0), tmp_path) == ""
    assert "GB of memory" in refusal(Recipe(MPM, (), memory=1e6), tmp_path)
    assert "GB of disk" in refusal(Recipe(MPM, (), memory=0.0, disk=1e6), tmp_path)
    reader = Recipe(MPM, (), memory=0.0, disk=0.0, segmenter="segmenter_swin_b")
    assert "needs segmenter_swin_b first" in refusal(reader, tmp_path)


def test_a_command_is_killed_for_a_reason_and_measured(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    code = f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(600)"
    killed = watch(["-c", code], tmp_path / "log", lambda: "enough" if begun.exists() else "")
    assert (killed.reason, killed.status) == ("enough", -9)
    code = "import time; print(len(b'x' * (100 << 20))); time.sleep(1)"
    ended = watch(["-c", code], tmp_path / "log")
    assert (ended.reason, ended.status) == ("", 0)
    assert 0.09 < ended.peak < 0.2  # and not that of this process, which is larger
    assert (tmp_path / "log").read_text() == f"{100 << 20}\n"


@pytest.mark.parametrize("name", RECIPES)
def test_the_command_of_a_recipe_is_understood(name: str, tmp_path: Path) -> None:
    command = RECIPES[name].command(tmp_path / "data", tmp_path, tmp_path / name)
    with pytest.raises(SystemExit) as ended:
        main([*command, "--print_config"])
    assert ended.value.code == 0
