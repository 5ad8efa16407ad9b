"""Published lists by name, and folders that are evaluated without a train/."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from datamodules.files.errors import MissingInputError, UserError
from datamodules.images import named_lists
from datamodules.images.evaluation_folder import EvaluationFolder
from datamodules.images.image_lists import read_image_list
from datamodules.images.named_lists import NAMED, find_list, keys_hash, name_of_list


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for key in ("val/a/1.png", "val/a/2.png", "val/b/1.png"):
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / key)
    return tmp_path


@pytest.mark.parametrize("name", ["authors_aa", "authors1w", "robustbench5000"])
def test_the_authors_files_are_found_in_the_imagenet_folder(
    name: str, shared: Path, tmp_path: Path
) -> None:
    file = shared / "imagenet_meta" / NAMED[name].files[-1]
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    with pytest.raises(MissingInputError, match=rf"list {name} is not part of this project: put "):
        find_list(Path(name), tmp_path)
    copy = Path(shutil.copy(file, tmp_path))
    copy.chmod(0o644)
    assert find_list(Path(name), tmp_path) == copy
    keys = [line.split()[0] for line in file.read_text().splitlines()]
    assert len(keys) == (10_000 if name == "authors1w" else 5000)
    same = "authors1w" if name == "authors1w" else "robustbench5000"
    assert name_of_list(reversed(keys)) == same
    assert name_of_list(keys[1:]) == ""
    copy.write_text("".join(f"{key} 0\n" for key in keys[1:]))
    with pytest.raises(UserError, match=rf"{copy} lists other images than {name}: fetch it anew"):
        find_list(Path(name), tmp_path)


def test_a_file_goes_before_a_name_and_other_paths_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("authors_aa").write_text("a/1.png 0\n")
    assert find_list(Path("authors_aa"), tmp_path) == Path("authors_aa")
    assert find_list(tmp_path / "authors1w", tmp_path) == tmp_path / "authors1w"


def test_a_name_reads_a_list_as_robustbench_has_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ["b/1.png", "a/2.png"]
    known = replace(NAMED["robustbench5000"], sha256=keys_hash(keys))
    monkeypatch.setitem(named_lists.NAMED, "robustbench5000", known)
    (root / known.files[0]).write_text("b/1.png\na/2.png\n")  # without labels
    folder = EvaluationFolder.read(root, Path("robustbench5000"))
    assert folder.images() == [("b/1.png", 1), ("a/2.png", 0)]


def test_lines_without_a_label_need_classes(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("b/1.png\nb/2 3.JPEG\na/1.png 0\n")
    path = tmp_path / "list.txt"
    assert read_image_list(path, ["a", "b"]) == [("b/1.png", 1), ("b/2 3.JPEG", 1), ("a/1.png", 0)]
    with pytest.raises(UserError, match=r":1: 'b/1.png' is not `path label`"):
        read_image_list(path, None)


def test_val_alone_names_the_classes_and_train_goes_before(root: Path) -> None:
    folder = EvaluationFolder.read(root)
    assert (folder.root, folder.classes) == (root / "val", ("a", "b"))
    assert folder.images() == [("a/1.png", 0), ("a/2.png", 0), ("b/1.png", 1)]
    for name in ("0", "a", "b"):
        (root / "train" / name).mkdir(parents=True)
    assert EvaluationFolder.read(root).images() == [("a/1.png", 1), ("a/2.png", 1), ("b/1.png", 2)]


def test_a_folder_of_class_folders_is_taken_as_it_is(root: Path) -> None:
    folder = EvaluationFolder.read(root / "val")
    assert (folder.root, folder.objects) == (root / "val", ("a", "b"))


def test_a_list_alone_labels_any_images(root: Path) -> None:
    (root / "list.txt").write_text("a/1.png 7\nb/1.png 2\n")
    folder = EvaluationFolder.read(root / "val", root / "list.txt")
    assert (folder.classes, folder.least_classes, len(folder.objects)) == (None, 8, 8)
    assert folder.images() == [("a/1.png", 7), ("b/1.png", 2)]
    with pytest.raises(UserError, match=r"label 7 of a/1.png, the data has 2"):
        EvaluationFolder.read(root, root / "list.txt")


def test_what_is_not_there_is_one_line(root: Path) -> None:
    with pytest.raises(MissingInputError, match=r"nowhere is not a folder: set IMAGENET"):
        EvaluationFolder.read(root / "nowhere")
    (root / "empty").mkdir()
    with pytest.raises(MissingInputError, match=r"empty holds no class folders: set IMAGENET"):
        EvaluationFolder.read(root / "empty")
    with pytest.raises(UserError, match=r"holds 2 images outside of class folders"):
        EvaluationFolder.read(root / "val" / "a")
    (root / "list.txt").write_text("a/9.png 0\n")
    with pytest.raises(MissingInputError, match=r"list.txt lists a/9.png, which is not below"):
        EvaluationFolder.read(root, root / "list.txt")
