"""ImageNet's val is sorted by what says its classes, all or nothing, and goes on after a stop."""

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from datamodules.files.errors import UserError
from datamodules.images.imagenet_folder import list_images
from datamodules.images.val_classes import read_devkit, read_val_list
from datamodules.part_supervised import PartSupervisedDataModule
from pipeline.__main__ import main as pipeline
from pipeline.annotations import sort_val
from tests.datamodules.annotations.annotated import make_set

WNIDS = ("n02", "n01", "n02", "n03", "n01")  # of images 1 to 5
NAMES = tuple(f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 6))
CLASSES = dict(zip(NAMES, WNIDS, strict=True))


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """Three classes, and val as it is unpacked, with what macOS leaves behind."""
    root = tmp_path / "imagenet"
    for name in set(WNIDS):
        (root / "train" / name).mkdir(parents=True)
        (root / "train" / name / "1.JPEG").write_bytes(b"train")
    (root / "val").mkdir()
    for name in NAMES:
        (root / "val" / name).write_bytes(name.encode())
    (root / "val" / "._ILSVRC2012_val_00000001.JPEG").write_bytes(b"\0\5\x16\7")
    return root


@pytest.fixture
def val_list(tmp_path: Path) -> Path:
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{name} {wnid}\n" for name, wnid in CLASSES.items()))
    return path


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """The two files of a development kit, with a synset that is no class."""
    data = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    rows = [(1, "n03"), (2, "n01"), (3, "n02"), (4, "n99")]
    kind = [("ILSVRC2012_ID", object), ("WNID", object), ("num_children", object)]
    synsets = np.array([(number, wnid, int(wnid == "n99")) for number, wnid in rows], kind)
    savemat(data / "meta.mat", {"synsets": synsets.reshape(-1, 1)})
    numbers = {wnid: number for number, wnid in rows}
    truth = "".join(f"{numbers[wnid]}\n" for wnid in WNIDS)
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)
    return data.parent


def state(imagenet: Path) -> dict[str, bytes]:
    val = imagenet / "val"
    return {str(p.relative_to(val)): p.read_bytes() for p in val.rglob("[!.]*") if p.is_file()}


SORTED = {f"{wnid}/{name}": name.encode() for name, wnid in CLASSES.items()}


def test_sorted_by_a_list_and_told(
    imagenet: Path, val_list: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sort_val", "--imagenet", str(imagenet), "--list", str(val_list)]
    assert pipeline(command) == 0
    assert state(imagenet) == SORTED
    assert list_images(imagenet / "val") == sorted(
        (key, ("n01", "n02", "n03").index(key[:3])) for key in SORTED
    )
    printed = capsys.readouterr().out
    assert "5 images moved, 0 were in their class folder already; 3 classes" in printed
    assert pipeline(command) == 0
    assert "0 images moved, 5 were in their class" in capsys.readouterr().out
    assert state(imagenet) == SORTED


@pytest.mark.parametrize("layout", ["folder", "data", "archive"])
def test_the_development_kit_says_the_classes(
    imagenet: Path, devkit: Path, layout: str, tmp_path: Path
) -> None:
    given = devkit / "data" if layout == "data" else devkit
    if layout == "archive":
        given = tmp_path / "kit.tar.gz"
        with tarfile.open(given, "w:gz") as archive:
            archive.add(devkit, devkit.name)
    assert read_devkit(given) == CLASSES
    sort_val.main(imagenet, devkit=given)
    assert state(imagenet) == SORTED


@pytest.mark.parametrize(
    "text",
    [
        "ImageId,PredictionString\n"
        + "".join(
            f"{name.removesuffix('.JPEG')},{wnid} 85 1 499 272 {wnid} 1 1 9 9 \n"
            for name, wnid in CLASSES.items()
        ),
        "".join(f"{name},{wnid}\r\n" for name, wnid in CLASSES.items()),
        "".join(f"{name}\t{wnid}\n\n" for name, wnid in CLASSES.items()),
    ],
    ids=["kaggle", "commas", "tabs"],
)
def test_lists_of_every_kind(text: str, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(text)
    assert read_val_list(tmp_path / "list") == CLASSES


def test_a_stopped_sort_goes_on(
    imagenet: Path, val_list: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    done = []

    def rename(source: Path, target: Path) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(os.replace(source, target))

    monkeypatch.setattr(sort_val.os, "rename", rename)
    assert pipeline(["sort_val", f"--imagenet={imagenet}", f"--list={val_list}"]) == 1
    assert "the same command goes on" in capsys.readouterr().err
    monkeypatch.undo()
    with pytest.raises(UserError, match="holds 3 images outside of class folders: make sort-val"):
        list_images(imagenet / "val")  # a part of val is not val
    sort_val.main(imagenet, list=val_list)
    assert "3 images moved, 2 were in" in capsys.readouterr().out
    assert state(imagenet) == SORTED


def spoil(imagenet: Path, what: str) -> str:
    """Makes val unfit; returns what the message must say."""
    val = imagenet / "val"
    if what == "missing":
        (val / NAMES[2]).unlink()
        return f"1 images of the list are missing.*{NAMES[2]}: unpack val again"
    if what == "surplus":
        (val / "mine.png").write_bytes(b"")
        return "1 images are not in the list.*mine.png"
    if what == "sorted surplus":
        (val / "n01").mkdir()
        (val / "n01" / "mine.png").write_bytes(b"")
        return "1 images are not in the list.*mine.png"
    if what == "wrong class":
        (val / "n03").mkdir()
        (val / NAMES[0]).rename(val / "n03" / NAMES[0])
        return f"1 images are in the folder of another class.*n03/{NAMES[0]}"
    if what == "twice":
        (val / "n02").mkdir()
        (val / "n02" / NAMES[0]).write_bytes(b"mine")
        return f"1 images are there twice.*{NAMES[0]}"
    (imagenet / "train/n03/1.JPEG").unlink()
    (imagenet / "train/n03").rmdir()
    return "1 classes of the list have no folder in .*train, the first is n03"


@pytest.mark.parametrize(
    "what", ["missing", "surplus", "sorted surplus", "wrong class", "twice", "unknown class"]
)
def test_what_does_not_fit_is_refused_before_anything_moves(
    imagenet: Path, val_list: Path, what: str
) -> None:
    message = spoil(imagenet, what)
    before = state(imagenet)
    with pytest.raises(UserError, match=f"{message}.*nothing was moved"):
        sort_val.main(imagenet, list=val_list)
    assert state(imagenet) == before


def test_nothing_is_overwritten(imagenet: Path) -> None:
    moves = sort_val.plan_moves(imagenet, CLASSES)
    target = moves.pairs[1][1]
    target.parent.mkdir()
    target.write_bytes(b"appeared since")
    with pytest.raises(FileExistsError, match="nothing is overwritten"):
        sort_val.move(moves.pairs)
    assert target.read_bytes() == b"appeared since"
    assert moves.pairs[1][0].is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.JPEG\n", r"list:1: 'a\.JPEG' is not `file class`"),
        ("a.JPEG n01\nval/b.JPEG n01\n", "list:2: 'val/b.JPEG n01' is not `file class`"),
        ("a.JPEG ..\n", "is not `file class`"),
        ("a.JPEG n01\na.JPEG n02\n", r"list:2: a\.JPEG is of n02, before it was of n01"),
        ("\n", "lists no images"),
    ],
)
def test_lists_that_say_no_class_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(text)
    with pytest.raises(UserError, match=message):
        read_val_list(tmp_path / "list")


def test_damaged_kits_are_refused(devkit: Path, tmp_path: Path) -> None:
    truth = devkit / "data" / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("1\n1861\n")
    with pytest.raises(UserError, match=r"names class '1861' that meta\.mat does not have"):
        read_devkit(devkit)
    (devkit / "data" / "meta.mat").write_bytes(b"no matrix")
    with pytest.raises(UserError, match=r"meta\.mat of .* is damaged"):
        read_devkit(devkit)
    truth.unlink()
    with pytest.raises(UserError, match=r"holds no ILSVRC2012_validation_ground_truth\.txt: set"):
        read_devkit(devkit)
    (tmp_path / "kit.tar.gz").write_bytes(b"\x1f\x8bno archive")
    with pytest.raises(UserError, match="is no readable archive"):
        read_devkit(tmp_path / "kit.tar.gz")


def test_one_source_of_the_classes_is_needed(imagenet: Path, val_list: Path) -> None:
    for given in ({}, {"devkit": val_list, "list": val_list}):
        with pytest.raises(UserError, match="set either DEVKIT"):
            sort_val.main(imagenet, **given)


def test_stage_3_says_at_once_that_val_is_not_sorted(tmp_path: Path) -> None:
    make_set(tmp_path)
    (tmp_path / "imagenet/val").mkdir()
    (tmp_path / "imagenet/val" / NAMES[0]).write_bytes(b"")
    with pytest.raises(UserError, match=r"val holds 1 images outside.*make sort-val IMAGENET="):
        PartSupervisedDataModule(tmp_path / "imagenet", tmp_path / "pinpp", tmp_path / "labels")
