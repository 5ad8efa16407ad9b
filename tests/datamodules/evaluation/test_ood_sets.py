from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.evaluation.class_subsets import ClassSubsets
from datamodules.evaluation.evaluation_sets import EvaluationSetting
from datamodules.evaluation.ood_sets import ClassFolders


def save(path: Path, value: int = 0, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def setting(
    folder: Path, objects: tuple[str, ...], size: int = 8, resize: int = 8
) -> EvaluationSetting:
    return EvaluationSetting(folder / "imagenet", folder / "pinpp", objects, size, resize, 0)


OBJECTS = ("n01", "n02", "n03", "n04")


def test_class_folders_are_labelled_by_wnid(tmp_path: Path) -> None:
    for key in ("n03/b.png", "n03/a.JPEG", "n01/c.jpg", "n99/d.png", "n01/notes.txt"):
        save(tmp_path / key) if "txt" not in key else (tmp_path / key).write_text("")
    (found,) = ClassFolders("sketch", tmp_path).sets(setting(tmp_path, OBJECTS))
    assert (found.name, found.table, found.missing, found.groups) == ("sketch", "ood", "", None)
    assert found.items() == [("n01/c.jpg", 0), ("n03/a.JPEG", 2), ("n03/b.png", 2)]


def test_mask_renumbers_the_classes_that_have_a_folder(tmp_path: Path) -> None:
    for key in ("n04/a.png", "n02/b.png"):
        save(tmp_path / key)
    (found,) = ClassFolders("r", tmp_path, mask=True).sets(setting(tmp_path, OBJECTS))
    assert found.groups is not None
    assert found.groups.tolist() == [-1, 0, -1, 1]
    assert found.group_names == ("n02", "n04")
    assert found.items() == [("n02/b.png", 0), ("n04/a.png", 1)]


def test_numbered_folders_are_positions_among_1000_classes(tmp_path: Path) -> None:
    objects = tuple(f"n{i:08d}" for i in range(1000))
    for key in ("0/a.png", "10/b.png", "999/c.png"):
        save(tmp_path / key)
    (found,) = ClassFolders("v2", tmp_path).sets(setting(tmp_path, objects))
    assert sorted(found.items()) == [("0/a.png", 0), ("10/b.png", 10), ("999/c.png", 999)]
    (found,) = ClassFolders("v2", tmp_path).sets(setting(tmp_path, OBJECTS))
    assert "numbers the 1,000 classes of ImageNet, the model has 4 classes" in found.missing


@pytest.mark.parametrize("square", [False, True])
def test_images_are_resized_as_published(tmp_path: Path, square: bool) -> None:
    save(tmp_path / "n01" / "a.png", 3, (40, 20))
    source = ClassFolders("a_plus", tmp_path, square=square)
    (found,) = source.sets(setting(tmp_path, OBJECTS, size=8, resize=10))
    with Image.open(tmp_path / "n01" / "a.png") as image:
        size = (10, 10) if square else (20, 10)
        kind = Image.Resampling.BILINEAR if square else Image.Resampling.BICUBIC
        wanted = np.array(image.resize(size, kind))
    left = (size[0] - 8) // 2
    pixels = found.image("n01/a.png").permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(pixels, wanted[1:9, left : left + 8])


def test_what_is_missing_says_why(tmp_path: Path) -> None:
    here = setting(tmp_path, OBJECTS)
    (found,) = ClassFolders("sketch", None).sets(here)
    assert found.missing.startswith("no folder given: set `folder`")
    (found,) = ClassFolders("sketch", tmp_path / "gone").sets(here)
    assert f"folder {tmp_path / 'gone'} does not exist" in found.missing
    save(tmp_path / "other" / "cat" / "a.png")
    for mask in (False, True):
        (found,) = ClassFolders("sketch", tmp_path / "other", mask).sets(here)
        assert "holds no image of the model's classes" in found.missing


def test_subsets_mask_and_group_the_val_images(tmp_path: Path) -> None:
    fish, bird = "n01440764", "n01614925"  # tench and bald eagle of PartImageNet
    objects = (fish, "n01443537", bird, "n03085013")  # a goldfish, a keyboard
    for name in objects:
        save(tmp_path / "imagenet" / "val" / name / "a.png")
    file = tmp_path / "subsets.json"
    file.write_text(f'{{"pin125": ["{bird}", "{fish}"], "odd": {{"{bird}": "b"}}}}')
    sets = {found.name: found for found in ClassSubsets(file).sets(setting(tmp_path, objects))}
    assert list(sets) == ["pin125", "pin11", "odd"]
    grouped = sets["pin11"]
    assert grouped.groups is not None
    assert grouped.groups.tolist() == [1, 1, 0, -1]
    assert grouped.group_names == ("bird", "fish")
    assert [label for _, label in grouped.items()] == [1, 1, 0]
    alone = sets["pin125"]
    assert alone.groups is not None
    assert alone.groups.tolist() == [0, -1, 1, -1]
    assert "fall into 1 of its 1 groups" in sets["odd"].missing
    without = {found.name: found for found in ClassSubsets().sets(setting(tmp_path, objects))}
    assert "printed nowhere" in without["pin125"].missing


@pytest.mark.parametrize("text", ["[]", '{"a": 3}', '{"a": {}}', '{"a": []}'])
def test_malformed_subsets_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "subsets.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"subsets.json is no file of subsets"):
        ClassSubsets(file).sets(setting(tmp_path, OBJECTS))
