from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from datamodules.annotations.pascal_part import read_pascal_part
from datamodules.files.errors import MissingInputError, UserError
from tests.datamodules.annotations.part_sources import Truth, rectangle, structs, write_mat

SHAPE = (20, 30)
DOG = Truth("dog", rectangle(SHAPE, 2, 3, 10, 12), [("head", rectangle(SHAPE, 1, 3, 4, 12))])
CAR = Truth("car", rectangle(SHAPE, 5, 20, 10, 9), [])
PLANE = Truth(
    "aeroplane",
    rectangle(SHAPE, 0, 0, 20, 30),
    [(f"engine_{i}", rectangle(SHAPE, i, i, 3, 3)) for i in (1, 2)],
)


def test_objects_come_in_file_order_with_their_masks(tmp_path: Path) -> None:
    file = tmp_path / "2008_000008.mat"
    write_mat(file, "2008_000008", [DOG, CAR, PLANE])
    found = read_pascal_part(file, *SHAPE)
    assert [(one.name, one.number) for one in found] == [("dog", 1), ("car", 2), ("aeroplane", 3)]
    for one, truth in zip(found, (DOG, CAR, PLANE), strict=True):
        whole = np.zeros(SHAPE, bool)
        whole[one.box.slices] = one.mask
        assert np.array_equal(whole, truth.mask)
        for (_, mask), (_, expected) in zip(one.parts, truth.parts, strict=True):
            part = np.zeros(SHAPE, bool)
            part[one.box.slices] = mask
            assert np.array_equal(part, expected)
    assert found[0].box == (3, 1, 15, 12)  # the head rises above the object
    assert [name for name, _ in found[2].parts] == ["engine", "engine"]
    assert found[1].parts == ()


def test_one_object_of_one_part_is_no_special_case(tmp_path: Path) -> None:
    file = tmp_path / "a.mat"
    write_mat(file, "a", [DOG])
    (only,) = read_pascal_part(file, *SHAPE)
    assert [name for name, _ in only.parts] == ["head"]


def test_an_image_without_objects_has_none(tmp_path: Path) -> None:
    file = tmp_path / "a.mat"
    write_mat(file, "a", [])
    assert read_pascal_part(file, *SHAPE) == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"b\.mat does not exist"):
        read_pascal_part(tmp_path / "b.mat", *SHAPE)


@pytest.mark.parametrize(
    ("truth", "size", "message"),
    [
        (DOG, (20, 31), r"object 1 \(dog\): its mask is 20x30, its image 20x31"),
        (Truth("zebra", DOG.mask), SHAPE, r"object 1 \(zebra\) is of no category of VOC; known: a"),
        (
            Truth("dog", DOG.mask, [("head", rectangle((9, 9), 0, 0, 3, 3))]),
            SHAPE,
            "part head: its mask is 9x9, its image 20x30",
        ),
        (Truth("dog", DOG.mask, [("a/b", DOG.mask)]), SHAPE, "not the structure .*a/b"),
    ],
)
def test_what_does_not_fit_is_refused(
    truth: Truth, size: tuple[int, int], message: str, tmp_path: Path
) -> None:
    write_mat(tmp_path / "a.mat", "a", [truth])
    with pytest.raises(UserError, match=message):
        read_pascal_part(tmp_path / "a.mat", *size)


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.mat"
    write_mat(file, "b", [DOG])
    with pytest.raises(UserError, match="annotates the image 'b'"):
        read_pascal_part(file, *SHAPE)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UserError, match=r"a\.mat is no MATLAB file that can be read"):
        read_pascal_part(file, *SHAPE)
    file.write_text("not MATLAB at all")
    with pytest.raises(UserError, match=r"a\.mat is no MATLAB file that can be read"):
        read_pascal_part(file, *SHAPE)
    savemat(file, {"other": 1})
    with pytest.raises(UserError, match="has not the structure of Pascal-Part"):
        read_pascal_part(file, *SHAPE)
    savemat(file, {"anno": {"imname": "a", "objects": structs([{"class": "dog"}])}})
    with pytest.raises(UserError, match="has not the structure of Pascal-Part"):
        read_pascal_part(file, *SHAPE)
