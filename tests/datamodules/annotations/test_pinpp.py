import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import (
    read_annotations,
    read_split,
    split_annotations,
    write_split,
)
from datamodules.masks.part_labels import decode_masks, encode_mask

SQUARE = [[2.0, 1.0, 6.0, 1.0, 6.0, 4.0, 2.0, 4.0]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two categories with ids that start again in every file; one square in three spellings."""
    square = np.zeros((6, 8), np.uint8)
    square[1:4, 2:6] = 1
    compressed = {"size": [6, 8], "counts": encode_mask(square).decode()}
    column_major = square.flatten(order="F")
    changes = np.flatnonzero(np.diff(column_major)) + 1
    runs = np.diff([0, *changes, 48]).tolist()
    spellings = [SQUARE, compressed, {"size": [6, 8], "counts": runs}]
    for name, parts in (("cat", ["tail", "head"]), ("radio", ["button"])):
        (tmp_path / "imagenet" / "train" / name).mkdir(parents=True)
        images = []
        for i in range(3):
            Image.new("RGB", (8, 6)).save(tmp_path / f"imagenet/train/{name}/{i}.jpg")
            images.append({"id": i + 1, "width": 8, "height": 6, "file_name": f"{name}/{i}.jpg"})
        content = {
            "images": images,
            "categories": [{"id": i + 1, "name": part} for i, part in enumerate(parts)],
            "annotations": [
                {"id": i + 1, "image_id": i + 1, "category_id": 1, "segmentation": segmentation}
                for i, segmentation in enumerate(spellings)
            ],
        }
        (tmp_path / "pinpp" / "json").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"pinpp/json/{name}.json").write_text(json.dumps(content))
    (tmp_path / "pinpp" / "including").mkdir()
    (tmp_path / "pinpp" / "including" / "cat.txt").write_text("tail:head\n")
    return tmp_path


def edit(root: Path, change: Any) -> Path:
    file = root / "pinpp" / "json" / "cat.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return file


def read(root: Path) -> Any:
    vocabulary = PartVocabulary.from_pinpp(root / "pinpp", root / "imagenet")
    return read_annotations(root / "pinpp", vocabulary, root / "imagenet" / "train")


def test_vocabulary_is_derived_from_names(root: Path) -> None:
    vocabulary = PartVocabulary.from_pinpp(root / "pinpp", root / "imagenet")
    assert vocabulary.parts == ("cat:head", "cat:tail", "radio:button")
    assert vocabulary.num_parts == 3
    assert vocabulary.parts_of(0) == (1, 2)
    assert vocabulary.object_parts.tolist() == [
        [True, True, True, False],
        [True, False, False, True],
    ]
    assert vocabulary.inclusions == ((2, 1),)
    vocabulary.save(root / "vocabulary.json")
    loaded = PartVocabulary.load(root / "vocabulary.json")
    assert loaded == vocabulary
    assert loaded.content_hash == vocabulary.content_hash
    with pytest.raises(ValueError, match="unknown part cat:wing; parts of cat: cat:head"):
        vocabulary.part_id("cat", "wing")


def test_three_spellings_of_a_mask_are_equal(root: Path) -> None:
    annotations = read(root)
    expected = np.zeros((6, 8), np.uint8)
    expected[1:4, 2:6] = 1
    assert [a.key for a in annotations[:3]] == ["cat/0.jpg", "cat/1.jpg", "cat/2.jpg"]
    for annotation in annotations:
        assert np.array_equal(decode_masks(annotation)[0], expected)
        assert annotation.instances[0].box == (2, 1, 6, 4)
    assert {a.instances[0].part for a in annotations[:3]} == {2}  # cat:tail has local id 1
    assert {a.instances[0].part for a in annotations[3:]} == {3}


def test_split_is_stable_when_images_are_added(root: Path) -> None:
    annotations = read(root)
    train, val = (split_annotations(annotations, part) for part in ("train", "val"))
    assert len(val) == 2
    assert sorted(train + val, key=lambda a: a.key) == annotations
    assert split_annotations(annotations[::-1], "val") == val[::-1]
    assert split_annotations(annotations, "val", seed=2) != val


def test_split_files_are_read_as_written(root: Path) -> None:
    annotations = read(root)
    train, val = (split_annotations(annotations, part) for part in ("train", "val"))
    file = root / "new" / "split.json"
    write_split(file, train[::-1], val)
    assert read_split(file, annotations) == (train, val)
    assert [path.name for path in file.parent.iterdir()] == ["split.json"]
    with pytest.raises(ValueError, match=r"cat/.* is twice in the split"):
        write_split(file, train, [*val, train[0]])
    assert read_split(file, annotations) == (train, val)
    with pytest.raises(FileNotFoundError, match=r"no\.json does not exist"):
        read_split(root / "no.json", annotations)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["train"].append("cat/9.jpg"), "'cat/9.jpg': not annotated"),
        (lambda s: s["train"].pop(), "'radio/2.jpg': annotated, but in neither list"),
        (lambda s: s["train"].clear(), "and 4 more: annotated, but in neither list"),
        (lambda s: s["val"].append("radio/2.jpg"), "'radio/2.jpg': in train and in val"),
        (lambda s: s["val"].append("cat/0.jpg"), "'cat/0.jpg': listed twice"),
        (lambda s: s.pop("val"), "is not a split file"),
        (lambda s: s.update(train=[1]), "is not a split file"),
    ],
)
def test_split_files_that_do_not_fit_are_refused(root: Path, change: Any, message: str) -> None:
    annotations = read(root)
    keys = [row.key for row in annotations]
    content = {"train": keys[1:], "val": keys[:1]}
    change(content)
    file = root / "split.json"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        read_split(file, annotations)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["annotations"][1].update(category_id=9),
            "annotation 2: unknown category_id 9",
        ),
        (lambda c: c["annotations"][1].update(image_id=9), "annotation 2: unknown image_id 9"),
        (lambda c: c["annotations"][0].update(segmentation=[[1, 2]]), "annotation 1: unreadable"),
        (
            lambda c: c["annotations"][1]["segmentation"].update(size=[8, 6]),
            "annotation 2: .*mask is 8x6, its image 6x8",
        ),
        (lambda c: c["annotations"][2]["segmentation"].update(counts=[5]), "runs cover 5 of 48"),
        (lambda c: c.pop("images"), "no list 'images'"),
    ],
)
def test_bad_annotations_are_named(root: Path, change: Any, message: str) -> None:
    file = edit(root, change)
    with pytest.raises(ValueError, match=message) as error:
        read(root)
    assert str(file) in str(error.value)


def test_json_that_is_not_json_is_named(root: Path) -> None:
    (root / "pinpp/json/cat.json").write_text("{")
    with pytest.raises(ValueError, match=r"cat\.json is not valid JSON"):
        read(root)


def test_missing_image_and_unknown_object_are_named(root: Path) -> None:
    (root / "imagenet/train/cat/1.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"cat\.json lists cat/1\.jpg"):
        read(root)
    (root / "pinpp/json/cat.json").rename(root / "pinpp/json/dog.json")
    with pytest.raises(ValueError, match=r"dog\.json annotates dog"):
        read(root)


def test_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="set IMAGENET"):
        PartVocabulary.from_pinpp(tmp_path, tmp_path)
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="set PINPP"):
        PartVocabulary.from_pinpp(tmp_path, tmp_path)
