from pathlib import Path

import numpy as np
import pytest

from datamodules.annotations.object_parts import AnnotatedObject, Box
from datamodules.annotations.panoptic_parts import CITYSCAPES_CLASSES, THINGS
from datamodules.annotations.part_grouping import TABLES, read_grouping
from datamodules.annotations.pascal_part import PASCAL_CLASSES
from datamodules.files.errors import MissingInputError, UserError

CLASSES = {"pascal_part": PASCAL_CLASSES, "panoptic_parts": CITYSCAPES_CLASSES}
SHIPPED = sorted((path.parent.name, path.stem) for path in TABLES.rglob("*.yaml"))
# Fine parts of a cat and a car in Pascal-Part, their numbers stripped
CAT = ["head", "leye", "reye", "lear", "rear", "nose", "torso", "neck", "tail"]
CAT += [f"{side}{end}{part}" for side in "lr" for end in "fb" for part in ("leg", "pa")]
CAR = [f"{side}side" for side in ("front", "left", "right", "back", "roof")]
CAR += ["leftmirror", "rightmirror", "fliplate", "bliplate"]
CAR += ["door", "wheel", "headlight", "window"]


def object_of(name: str, parts: dict[str, np.ndarray]) -> AnnotatedObject:
    shape = next(iter(parts.values())).shape
    box = Box(0, 0, shape[1], shape[0])
    return AnnotatedObject(name, 1, box, np.ones(shape, bool), tuple(parts.items()))


@pytest.mark.parametrize(("annotation_format", "name"), SHIPPED)
def test_shipped_tables_name_known_categories(annotation_format: str, name: str) -> None:
    table = read_grouping(name, annotation_format)
    table.require_classes(CLASSES[annotation_format])
    assert table.objects


@pytest.mark.parametrize("name", ["sitawarin", "without_sides"])
@pytest.mark.parametrize(("category", "fine"), [("cat", CAT), ("car", CAR)])
def test_pascal_tables_know_every_part(name: str, category: str, fine: list[str]) -> None:
    table = read_grouping(name, "pascal_part")
    parts = {part: np.eye(len(fine), dtype=bool)[i : i + 1] for i, part in enumerate(fine)}
    merged, unknown = table.merge_parts(object_of(category, parts))
    assert not unknown
    covered = np.sum([mask for _, mask in merged.parts], axis=0)
    assert covered.sum() == len(fine)
    assert covered.max() == 1


def test_cityscapes_categories_keep_all_their_parts() -> None:
    table = read_grouping("sitawarin", "panoptic_parts")
    for name, parts in THINGS.values():
        if not parts:
            assert name not in table.coarse_name
            continue
        masks = {part: np.eye(len(parts), dtype=bool)[i : i + 1] for i, part in enumerate(parts)}
        merged, unknown = table.merge_parts(table.rename(object_of(name, masks)))
        assert not unknown
        assert dict(merged.parts).keys() == set(parts)
    assert table.coarse_name["rider"] == "human"
    assert table.coarse_name["bus"] == "vehicle"


def test_a_pixel_belongs_to_the_first_part_that_claims_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("pet: {classes: [dog, cat], parts: {eye: ['[lr]eye'], head: [head, ear]}}")
    table = read_grouping(str(file), "pascal_part")
    row = np.arange(8)[None]
    parts = {"head": row < 6, "leye": row == 1, "reye": row == 3, "ear": row > 4, "tail": row == 7}
    merged, unknown = table.merge_parts(table.rename(object_of("dog", parts)))
    assert merged.name == "pet"
    found = dict(merged.parts)
    assert np.flatnonzero(found["eye"]).tolist() == [1, 3]
    assert np.flatnonzero(found["head"]).tolist() == [0, 2, 4, 5, 6, 7]
    assert unknown == ["pet:tail"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "the table must be a mapping"),
        ("dog: {parts: {}}", "parts of dog must be a mapping with entries"),
        ("dog: {part: {head: [head]}}", "dog has 'part', known are classes and parts"),
        ("dog: {parts: {head: head}}", "dog:head must be a list of text, not 'head'"),
        ("dog: {parts: {head: ['(']}}", r"dog:head: \['\('\] are no patterns"),
        ("a/b: {parts: {head: [head]}}", "'a/b' cannot be the name"),
        ("dog: {parts: {'a:b': [head]}}", "'a:b' cannot be the name"),
        (
            "a: {classes: [dog], parts: {h: [h]}}\nb: {classes: [dog], parts: {h: [h]}}",
            "dog is in a and in b",
        ),
        ("dog: [", "cannot be read as a grouping table"),
    ],
)
def test_malformed_tables_are_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=rf"mine.yaml.*{message}"):
        read_grouping(str(file), "pascal_part")


def test_unknown_tables_and_categories_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="'p1': give a YAML file or one of sitawarin"):
        read_grouping("p1", "pascal_part")
    file = tmp_path / "mine.yaml"
    file.write_text("dogg: {parts: {head: [head]}}")
    with pytest.raises(UserError, match="'dogg' is no category of the annotations; they know aero"):
        read_grouping(str(file), "pascal_part").require_classes(PASCAL_CLASSES)
