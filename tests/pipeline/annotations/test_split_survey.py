"""What check_data finds in the images of train and val, annotated or not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from datamodules.imagenet_shards import ImageNetShardsDataModule
from datamodules.images.imagenet_folder import list_images
from pipeline.annotations.check_data import check_data, main
from tests.datamodules.annotations.annotated import make_set
from tests.pipeline.commands import PROJECT


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The tiny set with an image of each class in val."""
    make_set(tmp_path)
    for name in ("cat", "flatworm"):
        (tmp_path / "imagenet/val" / name).mkdir(parents=True)
        Image.new("RGB", (9, 7)).save(tmp_path / "imagenet/val" / name / "9.webp")
    return tmp_path


def check(root: Path, decode: bool = False, workers: int = 1) -> tuple[int, dict]:
    """Exit status and JSON outcome of the command."""
    status = main(
        root / "imagenet", root / "pinpp", workers=workers, decode=decode, json=root / "out.json"
    )
    return status, json.loads((root / "out.json").read_text())


def found(outcome: dict) -> list[tuple[str, str]]:
    return [(p["kind"], os.path.basename(p["file"])) for p in outcome["problems"]]


def test_images_of_both_splits_are_counted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "imagenet/train/cat/._1.jpg").write_bytes(b"\0\5\x16\7")
    (root / "imagenet/train/cat/notes.txt").write_text("mine")
    status, outcome = check(root)
    assert status == 0
    assert outcome["splits"] == {
        "train": {"classes": 2, "images": 4, "left_out": 2, "turned": None},
        "val": {"classes": 2, "images": 2, "left_out": 0, "turned": None},
    }
    assert "train: 2 classes, 4 images, 2 hidden or other files left out" in capsys.readouterr().out


def test_a_data_set_without_val_is_no_problem(root: Path) -> None:
    shutil.rmtree(root / "imagenet/val")
    status, outcome = check(root)
    assert (status, list(outcome["splits"])) == (0, ["train"])


@pytest.mark.parametrize("workers", [1, 2])
def test_decode_reports_all_bad_images_of_train_and_val_at_once(
    root: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    images = root / "imagenet"
    for number in (4, 5):  # not annotated
        shutil.copy(images / "train/cat/1.jpg", images / f"train/cat/{number}.jpg")
    for name in ("train/cat/2.jpg", "train/cat/5.jpg", "val/cat/9.webp"):
        (images / name).write_bytes((images / name).read_bytes()[:-4])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    Image.new("RGB", (9, 7)).save(images / "val/flatworm/9.webp", exif=exif)
    assert check(root)[0] == 0  # their headers are sound
    capsys.readouterr()
    status, outcome = check(root, decode=True, workers=workers)
    assert status == 1
    assert found(outcome) == [("corrupt_image", name) for name in ("2.jpg", "5.jpg", "9.webp")]
    assert all("cannot be decoded (" in p["message"] for p in outcome["problems"])
    assert [split["turned"] for split in outcome["splits"].values()] == [0, 1]
    assert outcome["images"] == 3  # the annotation of the damaged one is not sound
    printed = capsys.readouterr()
    for name in ("train/cat/2.jpg", "train/cat/5.jpg", "val/cat/9.webp"):
        assert f"error corrupt_image {images / name}: cannot be decoded (" in printed.out
    assert "Decoding train" in printed.err
    assert "1 with an EXIF orientation" in printed.out


def test_annotations_of_damaged_images_are_left_out_of_the_copy(root: Path) -> None:
    path = root / "imagenet/train/cat/2.jpg"
    path.write_bytes(path.read_bytes()[:-40])
    data = (root / "imagenet", root / "pinpp")
    check_data(*data, fix=root / "fixed", decode=True, workers=1)
    listed = json.loads((root / "fixed/json/cat.json").read_text())["images"]
    assert [image["file_name"] for image in listed] == ["cat/1.jpg", "cat/3.jpg"]


def test_classes_that_no_stage_could_use_are_named(root: Path) -> None:
    for name in ("train/empty", "val/empty", "val/stranger"):
        (root / "imagenet" / name).mkdir()
    (root / "imagenet/train/.cache").mkdir()
    shutil.copy(root / "imagenet/train/cat/1.jpg", root / "imagenet/train/lost.JPEG")
    status, outcome = check(root)
    assert status == 1
    assert found(outcome) == [
        ("object_without_annotations", "empty"),
        ("images_without_class", "train"),
        ("class_without_images", "empty"),
        ("val_class_without_images", "empty"),
        ("unknown_class", "stranger"),
    ]
    severe = [p["kind"] for p in outcome["problems"] if p["affects_training"]]
    assert severe == ["images_without_class", "class_without_images", "unknown_class"]


def test_val_as_unpacked_is_reported_with_its_mend(root: Path) -> None:
    shutil.rmtree(root / "imagenet/val")
    (root / "imagenet/val").mkdir()
    for number in (1, 2):
        name = f"ILSVRC2012_val_{number:08d}.JPEG"
        shutil.copy(root / "imagenet/train/cat/1.jpg", root / "imagenet/val" / name)
    status, outcome = check(root)
    assert status == 1
    assert found(outcome) == [("images_without_class", "val")]
    message = outcome["problems"][0]["message"]
    assert message.startswith("holds 2 images outside of class folders: make sort-val IMAGENET=")


def bad_name(folder: Path) -> Path:
    """A copy of an image under a name that is Latin-1, as old archives hold them."""
    path = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg"))
    try:
        shutil.copy(folder / "1.jpg", path)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    return path


def test_names_that_are_not_utf8_are_found(root: Path) -> None:
    bad_name(root / "imagenet/train/cat")
    os.mkdir(os.fsencode(root / "imagenet/val") + b"/d\xf6g")
    env = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-m", "pipeline", "check_data", "--workers=1"]
    given = ["--imagenet", str(root / "imagenet"), "--pinpp", str(root / "pinpp")]
    ended = subprocess.run(
        [*command, *given, f"--json={root / 'out.json'}"], capture_output=True, cwd=PROJECT, env=env
    )
    assert ended.returncode == 1
    printed = ended.stdout.decode()
    folder = root / "imagenet"
    assert f"name_not_utf8 {folder}/train/cat/caf\\xe9.jpg: its name is not UTF-8" in printed
    assert f"name_not_utf8 {folder}/val/d\\xf6g: its name" in printed
    assert b"Traceback" not in ended.stderr
    outcome = json.loads((root / "out.json").read_text())
    assert outcome["summary"] == {"name_not_utf8": 2, "unknown_class": 1}


def test_a_class_of_train_that_is_not_utf8_is_found(root: Path) -> None:
    os.rename(root / "imagenet/train/cat", os.fsencode(root / "imagenet/train") + b"/c\xe4t")
    status, outcome = check(root)
    assert status == 1
    assert ("name_not_utf8", "c\\xe4t") in found(outcome)


def test_stages_refuse_such_names_before_any_work(root: Path) -> None:
    bad_name(root / "imagenet/train/cat")
    shutil.copy(root / "imagenet/train/cat/1.jpg", root / "imagenet/train/cat/né.jpg")
    with pytest.raises(ValueError, match=r"train/cat/caf\\xe9\.jpg: the name is not UTF-8.*convmv"):
        list_images(root / "imagenet/train")
    data = ImageNetShardsDataModule(root / "imagenet", root / "pinpp")
    with pytest.raises(ValueError, match="the name is not UTF-8"):
        _ = data.num_shards
