import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datamodules.annotations.checks import CheckedFile
from datamodules.annotations.files import read_discarded
from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.annotations.problems import KINDS
from datamodules.annotations.reports import ObjectJob, ObjectReport, report_object
from datamodules.masks.part_labels import decode_masks
from tests.datamodules.annotations.annotated import cat_content, make_set, square, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_set(tmp_path)


def report(root: Path, **options: Any) -> ObjectReport:
    job = ObjectJob("cat", root / "pinpp", root / "imagenet" / "train", **options)
    return report_object(job)


def second(content: dict[str, Any], key: str) -> dict[str, Any]:
    return content[key][1]


def test_sound_data_has_no_problem_and_is_counted(root: Path) -> None:
    found = report(root)
    assert found.problems == ()
    assert found.masks_per_image == (1, 1, 2)
    assert found.masks_per_part == (("head", 2), ("tail", 2))
    assert found.relations == (("tail", "head"),)


DAMAGES: list[tuple[Callable[[dict[str, Any]], Any], str, str]] = [
    (lambda c: c.pop("images"), "unreadable_file", ""),
    (lambda c: c.update(categories={}), "unreadable_file", ""),
    (lambda c: second(c, "images").pop("height"), "malformed_entry", "image 2"),
    (lambda c: second(c, "images").update(width=-6), "malformed_entry", "image 2"),
    (lambda c: second(c, "images").update(width=10**400), "malformed_entry", "image 2"),
    (lambda c: second(c, "images").update(id=[2]), "malformed_entry", "image at position 1"),
    (lambda c: second(c, "images").update(id=1), "duplicate_id", "image 1"),
    (lambda c: second(c, "images").update(file_name="cat/1.jpg"), "duplicate_file_name", "image 2"),
    (lambda c: second(c, "images").update(file_name="dog/2.jpg"), "wrong_folder", "image 2"),
    (lambda c: second(c, "images").update(file_name="cat/../2.jpg"), "wrong_folder", "image 2"),
    (lambda c: second(c, "images").update(file_name="cat/0.jpg"), "missing_image", "image 2"),
    (lambda c: second(c, "images").update(file_name="cat/\0" * 9), "wrong_folder", "image 2"),
    (lambda c: second(c, "images").update(file_name="cat/\ud800"), "name_not_utf8", "image 2"),
    (lambda c: second(c, "images").update(file_name=f"cat/{'x' * 999}.jpg"), "missing_image", ""),
    (lambda c: second(c, "images").update(file_name="cat/2"), "malformed_entry", "image 2"),
    (lambda c: second(c, "images").update(height=9), "size_mismatch", "annotation 11"),
    (lambda c: c["images"][2].update(height=6), "size_mismatch", "image 3"),
    (lambda c: second(c, "categories").pop("name"), "malformed_entry", "category 2"),
    (lambda c: second(c, "categories").update(name="a:b"), "malformed_entry", "category 2"),
    (lambda c: second(c, "categories").update(name="head"), "duplicate_category_name", "categor"),
    (lambda c: second(c, "categories").update(id=1), "duplicate_id", "category 1"),
    (lambda c: second(c, "annotations").update(image_id=9), "unknown_image", "annotation 11"),
    (lambda c: second(c, "annotations").update(image_id=1), "size_mismatch", "annotation 11"),
    (lambda c: second(c, "annotations").pop("category_id"), "unknown_category", "annotation 11"),
    (lambda c: second(c, "annotations").update(id=10), "duplicate_annotation_id", "annotation 10"),
    (lambda c: second(c, "annotations").update(id={}), "malformed_entry", "annotation at posit"),
    (lambda c: second(c, "annotations").update(segmentation=[]), "empty_polygon", "annotation 11"),
    (
        lambda c: second(c, "annotations").update(segmentation=[[1, 1, 2, 2]]),
        "degenerate_polygon",
        "annotation 11",
    ),
    (
        lambda c: second(c, "annotations").update(segmentation=[[1, 1, 20, 20, 3, 1]]),
        "mask_outside",
        "annotation 11",
    ),
    (
        lambda c: second(c, "annotations").update(segmentation={"size": [8, 6], "counts": [48]}),
        "empty_mask",
        "annotation 11",
    ),
    (lambda c: second(c, "annotations").update(bbox=[0, 0, 6, 8]), "box_mismatch", "annotation 11"),
    (lambda c: second(c, "annotations").update(bbox=[90, 0, 1, 1]), "box_elsewhere", "annotatio"),
    (lambda c: c["annotations"].append(c["annotations"][0]), "duplicate_mask", "annotation 10"),
    (lambda c: c["annotations"].pop(0), "image_without_parts", "image 1"),
]


@pytest.mark.parametrize(("damage", "kind", "entry"), DAMAGES)
def test_damage_is_named_and_can_be_mended(
    root: Path, damage: Callable[[dict[str, Any]], Any], kind: str, entry: str
) -> None:
    content = cat_content()
    damage(content)
    file = write(root, content)
    named = [p for p in report(root).problems if p.kind == kind and p.file == str(file)]
    assert any(problem.entry.startswith(entry) for problem in named)
    before = file.read_bytes()
    report(root, cleaned=root / "cleaned")
    assert file.read_bytes() == before
    if kind == "unreadable_file":
        assert not (root / "cleaned" / "json" / "cat.json").exists()
        return
    cleaned = ObjectJob("cat", root / "cleaned", root / "imagenet" / "train")
    left = {problem.kind for problem in report_object(cleaned).problems}
    assert left <= {"image_without_parts", "duplicate_category_name", "box_mismatch"}


def test_what_affects_training_is_what_the_reader_refuses(root: Path) -> None:
    for damage, kind, _ in DAMAGES:
        content = cat_content()
        damage(content)
        write(root, content)
        (root / "pinpp" / "including" / "cat.txt").write_text("")
        problems = CheckedFile(root / "pinpp" / "json" / "cat.json").problems
        if any(problem.affects_training for problem in problems):
            with pytest.raises(ValueError, match=r"cat\.json"):
                read(root)
        elif not KINDS[kind]:
            assert read(root)


def read(root: Path) -> Any:
    vocabulary = PartVocabulary.from_pinpp(root / "pinpp", root / "imagenet")
    return read_annotations(root / "pinpp", vocabulary, root / "imagenet" / "train")


def test_empty_and_repeated_masks_are_left_out_of_training(root: Path) -> None:
    content = cat_content()
    content["annotations"][1]["segmentation"]["counts"] = [48]
    content["annotations"].append(content["annotations"][0])
    write(root, content)
    assert [len(row.instances) for row in read(root) if row.label == 0] == [1, 0, 2]


def test_images_are_compared_with_their_entries(root: Path) -> None:
    folder = root / "imagenet" / "train" / "cat"
    (folder / "1.jpg").write_bytes(b"no image")
    Image.new("RGB", (7, 7)).save(folder / "2.jpg")
    whole = (folder / "3.jpg").read_bytes()
    (folder / "3.jpg").write_bytes(whole[: len(whole) // 2])
    kinds = [problem.kind for problem in report(root).problems]
    assert kinds[:2] == ["corrupt_image", "size_mismatch"]
    found = report(root, undecodable=frozenset({"3.jpg"}))
    assert [problem.kind for problem in found.problems] == ["corrupt_image", "size_mismatch"]
    assert found.masks_per_image == ()  # the third was reported when it was decoded


def test_relations_and_unknown_parts(root: Path) -> None:
    including = root / "pinpp" / "including"
    (including / "cat.txt").write_text("tail:head\nhorn:head\ntail\n")
    found = report(root, cleaned=root / "cleaned")
    assert [(p.kind, p.entry) for p in found.problems] == [
        ("unknown_relation_part", "line 2"),
        ("unknown_relation_part", "line 3"),
    ]
    assert (root / "cleaned" / "including" / "cat.txt").read_text() == "tail:head\n"
    (including / "cat.txt").write_bytes(b"\xff\xfe\x00")
    assert [p.kind for p in report(root).problems] == ["unreadable_file"]
    with pytest.raises(ValueError, match=r"cat\.txt is not UTF-8"):
        read(root)
    (including / "cat.txt").unlink()
    found = report(root, known_parts=frozenset({"head"}))
    assert [(p.kind, p.entry) for p in found.problems] == [
        ("unknown_category", "category 2"),
        ("image_without_parts", "image 2"),
    ]


def test_discarded_images_in_every_spelling(root: Path) -> None:
    file = root / "discarded_data.json"
    for content in (
        [{"file_name": "train/cat/2.jpg", "why": "blurred"}],
        {"cat": ["cat/2.jpg"]},
        {"images": [{"id": 1, "file_name": "cat/2.jpg"}]},
    ):
        file.write_text(json.dumps(content))
        assert read_discarded(file)["cat"] == {"2.jpg"}
    file.write_text(json.dumps(["n01440764_12.JPEG"]))
    assert read_discarded(file) == {"n01440764": {"n01440764_12.JPEG"}}
    found = report(root, discarded=frozenset({"2.jpg"}))
    assert [(p.kind, p.entry) for p in found.problems] == [("discarded_image", "image 2")]


def test_whole_objects_are_ordinary_parts(root: Path) -> None:
    vocabulary = PartVocabulary.from_pinpp(root / "pinpp", root / "imagenet")
    assert vocabulary.parts == ("cat:head", "cat:tail", "flatworm:flatworm")
    assert vocabulary.parts_of(1) == (3,)
    (row,) = [row for row in read(root) if row.label == 1]
    assert [part.part for part in row.instances] == [3]
    assert np.array_equal(decode_masks(row)[0], square(6, 8))
    job = ObjectJob("flatworm", root / "pinpp", root / "imagenet" / "train")
    assert report_object(job).masks_per_part == (("flatworm", 1),)


def test_cleaned_copy_keeps_what_is_sound(root: Path) -> None:
    content = cat_content()
    content["annotations"][1]["id"] = 10
    content["annotations"].append({"id": 40, "image_id": 1})
    write(root, content)
    report(root, cleaned=root / "cleaned")
    cleaned = json.loads((root / "cleaned" / "json" / "cat.json").read_text())
    assert [a.pop("id") for a in cleaned["annotations"]] == [10, 14, 12, 13]
    original = cat_content()
    for annotation in original["annotations"]:
        annotation.pop("id")
    assert cleaned == original
