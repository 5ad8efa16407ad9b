"""Damages annotations and images at random: validator and reader must answer with a name.

What the reader takes although something is wrong must be a mask of its image's size with its own
box, and where the image file has another size, the validator says so.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations, read_split
from datamodules.annotations.problems import KINDS
from datamodules.annotations.reports import ObjectJob, ObjectReport, report_object
from datamodules.annotations.split_checks import decode_images
from datamodules.masks.part_labels import ImageParts, decode_masks
from tests.datamodules.annotations.annotated import SIZES, cat_content, make_set, runs, write
from tests.datamodules.annotations.damages import DAMAGED, JUNK, damaged_contents

NAMED = (ValueError, FileNotFoundError)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("damaged"))


def read(root: Path) -> list[ImageParts]:
    vocabulary = PartVocabulary.from_pinpp(root / "pinpp", root / "imagenet")
    return read_annotations(root / "pinpp", vocabulary, root / "imagenet" / "train")


def validate(root: Path, cleaned: Path | None = None) -> ObjectReport:
    job = ObjectJob("cat", root / "pinpp", root / "imagenet" / "train", cleaned=cleaned)
    return report_object(job)


def check_answers(root: Path) -> None:
    """Both answer; the validator finds what the reader refuses; what is read fits its image."""
    found = validate(root)
    affected = any(problem.affects_training for problem in found.problems)
    for problem in found.problems:
        assert problem.kind in KINDS
        assert problem.message
        assert "cat" in problem.file
        assert "\n" not in str(problem)
    try:
        rows = read(root)
    except NAMED as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert "cat" in refusal
        assert affected
        return
    for row in rows:
        with Image.open(root / "imagenet" / "train" / row.key) as image:
            fits = (row.height, row.width) == (image.height, image.width)
        assert fits or affected
        masks = decode_masks(row)
        assert masks.shape == (len(row.instances), row.height, row.width)
        for part, mask in zip(row.instances, masks, strict=True):
            assert mask.any()
            ys, xs = np.nonzero(mask)
            assert part.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    content = json.loads((root / "pinpp" / "json" / "cat.json").read_bytes())
    assert masks_by_key(content) == {
        row.key: {mask.tobytes() for mask in decode_masks(row)} for row in rows if row.label == 0
    }


def masks_by_key(content: dict[str, Any]) -> dict[str, set[bytes]]:
    """Masks of accepted annotations as `pycocotools` alone reads them."""
    expected: dict[str, set[bytes]] = {}
    for image in content["images"]:
        assert image["file_name"] not in expected
        masks = expected[image["file_name"]] = set()
        for annotation in content["annotations"]:
            if annotation["image_id"] == image["id"]:
                given = annotation["segmentation"]
                if isinstance(given, list) or isinstance(given["counts"], list):
                    given = coco_mask.frPyObjects(given, image["height"], image["width"])
                rle = coco_mask.merge(given) if isinstance(given, list) else given
                mask = coco_mask.decode(rle)
                masks |= {np.ascontiguousarray(mask).tobytes()} if mask.any() else set()
    return expected


@given(content=damaged_contents())
@settings(DAMAGED, max_examples=300)
def test_damaged_annotations(root: Path, content: Any) -> None:
    write(root, content)
    check_answers(root)


@given(content=JUNK)
@settings(DAMAGED, max_examples=60)
def test_any_json(root: Path, content: Any) -> None:
    write(root, content)
    check_answers(root)


@given(data=st.data())
@settings(DAMAGED, max_examples=120)
def test_damaged_bytes(root: Path, data: st.DataObject) -> None:
    raw = bytearray(json.dumps(cat_content()).encode())
    start = data.draw(st.integers(0, len(raw)))
    stop = data.draw(st.sampled_from([start, start + 1, start + 9, len(raw)]))
    raw[start:stop] = data.draw(st.binary(max_size=4) | st.just(b"[" * 5000))
    (root / "pinpp" / "json" / "cat.json").write_bytes(raw)
    check_answers(root)


@given(content=damaged_contents())
@settings(DAMAGED, max_examples=120)
def test_the_cleaned_copy_is_sound(root: Path, content: Any) -> None:
    file = write(root, content)
    before = file.read_bytes()
    cleaned = root / "cleaned"
    validate(root, cleaned)
    assert file.read_bytes() == before
    if not (cleaned / "json" / "cat.json").exists():
        return
    job = ObjectJob("cat", cleaned, root / "imagenet" / "train")
    assert not [p for p in report_object(job).problems if p.affects_training]
    for file in cleaned.rglob("*.*"):
        file.unlink()


@given(
    order=st.permutations([1, 2, 3]),
    as_polygons=st.booleans(),
    boxes=st.booleans(),
)
@settings(DAMAGED, max_examples=12)
def test_masks_of_other_images_are_refused(
    root: Path, order: list[int], as_polygons: bool, boxes: bool
) -> None:
    """Masks that fill their images, given to images of other sizes in every order."""
    content = cat_content()
    content["annotations"] = []
    for index, (image_id, source) in enumerate(zip(SIZES, order, strict=True)):
        height, width = SIZES[source]
        corners = [[0, 0, width, 0, width, height, 0, height]]
        rle = {"size": [height, width], "counts": runs(np.ones((height, width), np.uint8))}
        annotation = {
            "id": index,
            "image_id": image_id,
            "category_id": 1,
            "segmentation": corners if as_polygons else rle,
        }
        content["annotations"].append(annotation | ({"bbox": [0, 0, 1, 1]} if boxes else {}))
    write(root, content)
    kinds = {p.kind for p in validate(root).problems if p.affects_training}
    if order == [1, 2, 3]:
        assert not kinds
        assert read(root)
    elif as_polygons:  # a polygon may overhang by a pixel: 5x7 and 6x8 are that near
        assert kinds == ({"mask_outside"} if order != [3, 2, 1] else set())
    else:
        assert kinds == {"size_mismatch"}
        with pytest.raises(ValueError, match=r"cat\.json: annotation"):
            read(root)


@given(data=st.data())
@settings(DAMAGED, max_examples=60)
def test_damaged_images(root: Path, data: st.DataObject) -> None:
    write(root, cat_content())
    path = root / "imagenet" / "train" / "cat" / "2.jpg"
    whole = path.read_bytes()
    raw = bytearray(whole)
    match data.draw(st.sampled_from(["cut", "bytes", "other", "resize"])):
        case "cut":
            del raw[data.draw(st.integers(0, len(raw) - 1)) :]
        case "bytes":
            start = data.draw(st.integers(0, len(raw) - 1))
            raw[start : start + 4] = data.draw(st.binary(max_size=6))
        case "other":
            raw = bytearray(data.draw(st.binary(max_size=40)))
        case "resize":
            Image.new("RGB", data.draw(st.sampled_from([(8, 6), (6, 9), (1, 1)]))).save(path)
            raw = bytearray(path.read_bytes())
    try:
        path.write_bytes(raw)
        train = root / "imagenet" / "train"
        found = report_object(ObjectJob("cat", root / "pinpp", train)).problems
        found += tuple(p for _, p in decode_images((train, ("cat/2.jpg",))).damaged)
        kinds = {problem.kind for problem in found}
        assert kinds <= {"corrupt_image", "size_mismatch"}
        if not kinds:
            with Image.open(path) as image:
                assert image.convert("RGB").size == (6, 8)
    finally:
        path.write_bytes(whole)


@given(raw=st.binary(max_size=30), lines=st.lists(st.text(max_size=8), max_size=4))
@settings(DAMAGED, max_examples=60)
def test_damaged_relations(root: Path, raw: bytes, lines: list[str]) -> None:
    write(root, cat_content())
    file = root / "pinpp" / "including" / "cat.txt"
    file.write_bytes(raw + "\n".join(lines).encode("utf-8", "surrogatepass"))
    try:
        check_answers(root)
    finally:
        file.write_text("tail:head\n")


@given(content=JUNK | st.fixed_dictionaries({"train": JUNK, "val": JUNK}))
@settings(DAMAGED, max_examples=80)
def test_damaged_splits_and_vocabularies(root: Path, content: Any) -> None:
    file = root / "split.json"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"split\.json"):
        read_split(file, [ImageParts("cat/1.jpg", 0, 6, 8)])
    with pytest.raises(ValueError, match=r"split\.json"):
        PartVocabulary.load(file)


@given(
    content=st.fixed_dictionaries(
        {"objects": JUNK, "parts": JUNK, "inclusions": JUNK | st.just([[1, 1]])}
    )
)
@settings(DAMAGED, max_examples=60)
def test_damaged_vocabularies(root: Path, content: Any) -> None:
    file = root / "vocabulary.json"
    file.write_text(json.dumps(content))
    try:
        vocabulary = PartVocabulary.load(file)
    except ValueError as error:
        refusal = str(error)
    else:
        refusal = "vocabulary.json is fine"
        shape = (len(vocabulary.objects), vocabulary.num_parts + 1)
        assert vocabulary.object_parts.shape == shape
    assert "vocabulary.json" in refusal


def test_odd_files_where_annotations_should_be(root: Path) -> None:
    file = root / "pinpp" / "json" / "cat.json"
    file.unlink()
    file.mkdir()
    check_answers(root)
    file.rmdir()
    os.symlink(root / "nowhere", file)
    check_answers(root)
    file.unlink()
    file.write_text('{"images": ' * 3000)
    check_answers(root)
    file.unlink()
    write(root, cat_content())
    check_answers(root)
