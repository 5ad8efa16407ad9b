from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.annotations.object_parts import AnnotatedObject, Box, encode_within, extent
from datamodules.annotations.object_rules import ObjectRules
from datamodules.files.errors import UserError
from datamodules.masks.part_labels import ImageParts, PartInstance, decode_masks

CROP = ObjectRules("crop", margin=0.0, square=False, min_pixels=1, max_other=None)
LARGEST = replace(CROP, objects="largest")


def an_object(
    name: str, number: int, box: Box, parts: bool = True, single: bool = True
) -> AnnotatedObject:
    mask = np.ones((box.height, box.width), bool)
    return AnnotatedObject(name, number, box, mask, (("part", mask),) if parts else (), single)


@st.composite
def boxes_in_images(draw: st.DrawFn) -> tuple[Box, int, int]:
    height, width = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    right, bottom = draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height))
    return Box(left, top, right, bottom), height, width


@given(boxes_in_images(), st.floats(0, 3), st.booleans())
def test_a_crop_holds_its_object_and_ends_at_the_border(
    drawn: tuple[Box, int, int], margin: float, square: bool
) -> None:
    box, height, width = drawn
    window = replace(CROP, margin=margin, square=square).window(box, height, width)
    assert 0 <= window.left <= box.left < box.right <= window.right <= width
    assert 0 <= window.top <= box.top < box.bottom <= window.bottom <= height
    if square and max(window.height, window.width) < min(height, width):
        assert window.height == window.width


def test_margins_are_a_share_of_the_longer_side() -> None:
    box = Box(20, 30, 30, 50)
    assert replace(CROP, margin=0.1).window(box, 100, 100) == Box(18, 28, 32, 52)
    assert replace(CROP, margin=0.1, square=True).window(box, 100, 100) == Box(13, 28, 37, 52)
    assert replace(CROP, margin=1).window(box, 100, 100) == Box(0, 10, 50, 70)
    # a square that would leave the image is moved back into it
    assert replace(CROP, square=True).window(Box(0, 30, 10, 50), 100, 100) == Box(0, 30, 20, 50)
    assert replace(CROP, square=True).window(Box(0, 0, 100, 10), 20, 100) == Box(0, 0, 100, 20)


def test_every_object_is_kept_or_counted() -> None:
    objects = [
        an_object("dog", 1, Box(0, 0, 10, 10)),
        an_object("dog", 2, Box(20, 20, 22, 22)),
        an_object("sofa", 3, Box(30, 0, 60, 30), parts=False),
        an_object("cat", 4, Box(31, 1, 39, 9)),
        an_object("dog", 0, Box(50, 50, 60, 60), single=False),
    ]
    rules = replace(CROP, min_pixels=5, max_other=0.5)
    chosen, dropped = rules.choose(objects, 100, 100)
    assert [one.found.number for one in chosen] == [1]
    assert dropped == {
        ("too_small", "dog"): 1,
        ("no_parts", "sofa"): 1,
        ("covered_by_others", "cat"): 1,
        ("no_instance", "dog"): 1,
    }
    assert len(replace(rules, max_other=1.0).choose(objects, 100, 100)[0]) == 2


def test_the_largest_object_names_the_whole_image() -> None:
    objects = [
        an_object("dog", 1, Box(0, 0, 10, 10)),
        an_object("cat", 2, Box(20, 20, 40, 40)),
        an_object("person", 0, Box(0, 0, 90, 90), single=False),
    ]
    chosen, dropped = LARGEST.choose(objects, 90, 100)
    assert [(one.found.name, one.window) for one in chosen] == [("cat", Box(0, 0, 100, 90))]
    assert dropped == {("not_largest", "dog"): 1, ("no_instance", "person"): 1}
    bare = [an_object("sofa", 1, Box(0, 0, 50, 50), parts=False), objects[0]]
    chosen, dropped = LARGEST.choose(bare, 90, 100)
    assert not chosen
    assert dropped == {("no_parts", "sofa"): 1, ("not_largest", "dog"): 1}
    assert LARGEST.choose([], 90, 100) == ([], {})


@given(boxes_in_images(), st.integers(0, 2**32 - 1))
def test_masks_are_placed_where_they_were(drawn: tuple[Box, int, int], seed: int) -> None:
    window, height, width = drawn
    mask = np.zeros((height, width), bool)
    inside = np.random.default_rng(seed).random((window.height, window.width)) < 0.3
    mask[window.slices] = inside
    box = extent(mask)
    rle = encode_within(mask[box.slices], box, window)
    parts = ImageParts("a", 0, window.height, window.width, (PartInstance(1, rle, (0, 0, 0, 0)),))
    assert np.array_equal(decode_masks(parts)[0], inside)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"margin": -0.1}, "margin is -0.1"),
        ({"margin": float("nan")}, "margin is nan"),
        ({"min_pixels": 0}, "min_pixels is 0"),
        ({"max_other": -1.0}, "max_other is -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(CROP, **setting)  # type: ignore[arg-type]
