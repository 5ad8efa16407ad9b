from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datamodules.annotations.panoptic_parts import read_panoptic_parts, split_ids
from datamodules.files.errors import MissingInputError, UserError
from tests.datamodules.annotations.part_sources import rectangle, write_ids

SHAPE = (20, 30)


def by_digits(number: int) -> tuple[int, int]:
    """Instance and part read from the digits, as the format describes them."""
    text = str(number)
    if len(text) <= 2:
        return 0, 0
    if len(text) <= 5:
        return int(text), 0
    return int(text[:-2]), int(text[-2:])


@given(
    st.lists(
        st.one_of(st.integers(0, 99), st.integers(1000, 99_999), st.integers(100_000, 9_999_999)),
        min_size=1,
    )
)
def test_ids_are_taken_apart_by_their_digits(numbers: list[int]) -> None:
    instances, parts = split_ids(np.array([numbers]))
    pairs = zip(instances[0].tolist(), parts[0].tolist(), strict=True)
    assert list(pairs) == [by_digits(number) for number in numbers]


@pytest.mark.parametrize("number", [-1, 100, 999, 10_000_000])
def test_numbers_that_are_no_ids_are_refused(number: int) -> None:
    with pytest.raises(UserError, match=f"{number} is no id"):
        split_ids(np.array([[7, number]]))


def test_instances_parts_and_crowds(tmp_path: Path) -> None:
    ids = np.full(SHAPE, 7, np.int32)
    rider, car = rectangle(SHAPE, 2, 3, 6, 5), rectangle(SHAPE, 4, 12, 8, 10)
    crowd, cycle = rectangle(SHAPE, 15, 0, 5, 9), rectangle(SHAPE, 14, 20, 4, 4)
    ids[rider] = 25000  # the first instance has the number 0
    ids[2:4, 3:8] = 2500002
    ids[car] = 2601700
    ids[6:8, 12:22] = 2601705
    ids[crowd] = 24
    ids[cycle] = 33004
    write_ids(tmp_path / "a.tif", ids)
    found = {one.number: one for one in read_panoptic_parts(tmp_path / "a.tif", *SHAPE)}
    assert {number: one.name for number, one in found.items()} == {
        25000: "rider",
        26017: "car",
        33004: "bicycle",
        24: "person",
    }
    assert [number for number, one in found.items() if not one.single] == [24]
    for number, truth in ((25000, rider), (26017, car), (24, crowd), (33004, cycle)):
        whole = np.zeros(SHAPE, bool)
        whole[found[number].box.slices] = found[number].mask
        assert np.array_equal(whole, truth)
    (head,) = found[25000].parts
    assert head[0] == "head"
    assert np.array_equal(head[1], rectangle((6, 5), 0, 0, 2, 5))
    assert [name for name, _ in found[26017].parts] == ["chassis"]
    assert found[33004].parts == ()


def test_a_scene_without_instances_has_no_objects(tmp_path: Path) -> None:
    write_ids(tmp_path / "a.tif", np.full(SHAPE, 7, np.int32))
    assert read_panoptic_parts(tmp_path / "a.tif", *SHAPE) == []


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (500, "500 is no id"),
        (2400107, "instance 24001 has part 7, but a person no such part"),
        (3300101, "instance 33001 has part 1, but a bicycle no such part"),
        (21003, "instance 21003 is of no category that has instances"),
    ],
)
def test_unknown_ids_are_refused(number: int, message: str, tmp_path: Path) -> None:
    write_ids(tmp_path / "a.tif", np.full(SHAPE, number, np.int32))
    with pytest.raises(UserError, match=f"a.tif: {message}.*Cityscapes"):
        read_panoptic_parts(tmp_path / "a.tif", *SHAPE)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    with pytest.raises(MissingInputError, match=r"a\.tif does not exist"):
        read_panoptic_parts(file, *SHAPE)
    write_ids(file, np.random.default_rng(0).integers(0, 34, SHAPE).astype(np.int32))
    with pytest.raises(UserError, match="is 20x30, its image 20x31"):
        read_panoptic_parts(file, 20, 31)
    content = file.read_bytes()
    for damaged in (content[:40], content[: len(content) // 2], b"II*\0 and nothing"):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"a\.tif cannot be decoded"):
            read_panoptic_parts(file, *SHAPE)
    Image.new("RGB", (30, 20)).save(file)
    with pytest.raises(UserError, match="not one integer a pixel"):
        read_panoptic_parts(file, *SHAPE)


def test_parts_of_an_instance_in_front_are_its_own(tmp_path: Path) -> None:
    ids = np.full(SHAPE, 7, np.int32)
    ids[2:18, 2:28] = 2600105
    ids[5:15, 10:14] = 2400101  # a person before the car, within its box
    write_ids(tmp_path / "a.tif", ids)
    person, car = read_panoptic_parts(tmp_path / "a.tif", *SHAPE)
    ((torso, person_mask),), ((chassis, car_mask),) = person.parts, car.parts
    assert (torso, chassis) == ("torso", "chassis")
    assert np.array_equal(car_mask, ids[2:18, 2:28] == 2600105)
    assert person_mask.all()
