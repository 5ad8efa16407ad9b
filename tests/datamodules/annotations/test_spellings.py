"""Ids, sizes and names as people and programs write them: read as meant, or refused by name."""

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.files.errors import UserError
from datamodules.files.integers import as_id, whole_number
from datamodules.labels.coco import from_coco
from datamodules.masks.part_labels import ImageParts
from tests.datamodules.annotations.annotated import cat_content, make_set, write
from tests.datamodules.annotations.damages import DAMAGED


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_set(tmp_path)


def read(root: Path) -> list[ImageParts]:
    vocabulary = PartVocabulary.from_pinpp(root / "pinpp", root / "imagenet")
    return read_annotations(root / "pinpp", vocabulary, root / "imagenet" / "train")


def import_rows(root: Path) -> dict[str, ImageParts]:
    vocabulary = PartVocabulary.from_pinpp(root / "pinpp", root / "imagenet")
    return from_coco(root / "pinpp/json/cat.json", vocabulary)


@pytest.mark.parametrize(
    ("value", "number"),
    [(64, 64), (64.0, 64), (64.5, None), (True, None), (None, None), ("64", None), ([64], None)]
    + [(value, None) for value in (float("nan"), float("inf"), 1e30)],
)
def test_whole_numbers(value: Any, number: int | None) -> None:
    assert whole_number(value) == number
    assert type(whole_number(value)) is type(number)


@pytest.mark.parametrize(
    ("value", "number"),
    [(12, 12), (12.0, 12), ("12", 12), (" 12 ", 12), ("012", "012"), ("n01", "n01"), (10**30,) * 2]
    + [(value, None) for value in (-1, -1.0, 1.5, True, None, [], {}, "", "  ", float("nan"))],
)
def test_ids(value: Any, number: int | str | None) -> None:
    assert as_id(value) == number
    assert type(as_id(value)) is type(number)


SPELLINGS: list[Callable[[dict[str, Any]], Any]] = [
    lambda c: c["images"][0].update(id="1"),
    lambda c: c["categories"][1].update(id=2.0),
    lambda c: c["annotations"][0].update(image_id="1", category_id=1.0),
    lambda c: [one.update(id=str(one["id"])) for one in (*c["images"], *c["categories"])],
]


@pytest.mark.parametrize("spell", SPELLINGS)
def test_ids_written_as_text_or_with_a_point_are_the_numbers_with_one_warning(
    spell: Callable[[dict[str, Any]], Any], root: Path
) -> None:
    expected, imported = read(root), import_rows(root)
    content = cat_content()
    spell(content)
    write(root, content)
    with pytest.warns(UserWarning, match=r"cat.json: \d ids are written like .*numbers") as caught:
        assert read(root) == expected
    assert len([one for one in caught if "ids" in str(one.message)]) == 1
    with pytest.warns(UserWarning, match="they are read as numbers"):
        assert import_rows(root) == imported


def test_sizes_written_as_floats_are_sizes(root: Path) -> None:
    expected, imported = read(root), import_rows(root)
    content = cat_content()
    for image in content["images"]:
        image |= {"height": float(image["height"]), "width": float(image["width"])}
    content["annotations"][0]["segmentation"]["size"] = [6.0, 8.0]
    write(root, content)
    assert read(root) == expected
    assert import_rows(root) == imported


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"][0].update(height=None), r"image 1: its height is None, not a whole"),
        (lambda c: c["images"][0].update(width=8.5), r"image 1: its width is 8\.5, not a whole"),
        (lambda c: c["images"][0].update(width=True), r"image 1: its width is True, not a whole"),
        (lambda c: c["images"][0].update(width=float("nan")), r"image 1: its width is nan"),
        (
            lambda c: c["images"][0].update(id=-1),
            r"image at position 0: .* has no id: it must",
        ),
        (lambda c: c["images"][1].update(id="1"), r"image 1: 2 entries share .*'1' and 1\)"),
        (lambda c: c["categories"][1].update(id="1"), r"category 1: 2 entries share .*'1' and 1"),
        (lambda c: c["annotations"][0].update(id=None), r"annotation at position 0: .*has no id"),
        (lambda c: c["annotations"][0].update(image_id=True), r"annotation 10: unknown image_id T"),
        (lambda c: c["annotations"][0].update(image_id="01"), r"annotation 10: .* image_id '01'"),
        (
            lambda c: c["categories"][1].update(name=" head"),
            r"cat.json: the categories 'head' and ' head' differ by blanks alone: rename one",
        ),
    ],
)
def test_what_is_not_unambiguous_is_refused_with_file_and_id(
    change: Callable[[dict[str, Any]], Any], message: str, root: Path
) -> None:
    content = cat_content()
    change(content)
    file = write(root, content)
    with pytest.raises(UserError, match=message) as caught:
        read(root)
    assert str(file) in str(caught.value)


def test_blanks_around_a_part_s_name_are_left_out_with_a_warning(root: Path) -> None:
    expected = read(root)
    content = cat_content()
    content["categories"][1]["name"] = " tail "
    write(root, content)
    with pytest.warns(UserWarning, match="category 2: ' tail ' is read without its blanks"):
        assert read(root) == expected


def test_byte_order_marks_are_no_content(root: Path) -> None:
    vocabulary = PartVocabulary.from_pinpp(root / "pinpp", root / "imagenet")
    expected = read(root)
    for file in (root / "pinpp").glob("*/cat.*"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert PartVocabulary.from_pinpp(root / "pinpp", root / "imagenet") == vocabulary
    assert read(root) == expected


FIELDS = st.sampled_from(
    [(kind, "id") for kind in ("images", "categories", "annotations")]
    + [("annotations", key) for key in ("image_id", "category_id")]
)
SPELLED: dict[str, Callable[[int], Any]] = {
    "as it is": int,
    "with a point": float,
    "as text": str,
    "with a blank": lambda number: f"{number} ",
}
OTHERS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 20), st.floats(), st.text(max_size=3), st.just([1]),
    st.sampled_from([10**30, 1e30]),
)  # fmt: skip


def outcome(root: Path) -> tuple[list[ImageParts], str]:
    """What is read, or why nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read(root), ""
        except UserError as error:
            return [], str(error)


@DAMAGED
@given(field=FIELDS, spelling=st.sampled_from(sorted(SPELLED)))
def test_any_spelling_of_an_id_is_read_like_the_number(
    field: tuple[str, str], spelling: str, root: Path
) -> None:
    write(root, cat_content())
    expected = read(root)
    content = cat_content()
    entry = content[field[0]][0]
    entry[field[1]] = SPELLED[spelling](entry[field[1]])
    write(root, content)
    assert outcome(root) == (expected, "")


@DAMAGED
@given(field=FIELDS, value=OTHERS)
def test_any_id_is_read_or_refused_naming_the_file_and_entry(
    field: tuple[str, str], value: Any, root: Path
) -> None:
    content = cat_content()
    content[field[0]][0][field[1]] = value
    file = write(root, json.loads(json.dumps(content)))
    rows, refusal = outcome(root)
    if refusal:
        assert re.match(rf"{re.escape(str(file))}: (image|category|annotation) \S+", refusal)
    else:
        assert len(rows) == 4
