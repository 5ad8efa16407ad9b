import json
from pathlib import Path
from typing import Any

import pytest

from datamodules.annotations.part_imagenet import (
    group_by_super_category,
    object_of,
    read_part_imagenet,
    super_categories,
)
from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.annotations.pinpp_writer import write_pinpp
from datamodules.masks.part_labels import decode_masks

# As released: ids start at 0, and a part's name can have two words.
CATEGORIES = [
    {"id": 0, "name": "Quadruped Head", "supercategory": "Quadruped"},
    {"id": 1, "name": "Quadruped Body", "supercategory": "Quadruped"},
    {"id": 2, "name": "Car Body", "supercategory": "Car"},
    {"id": 3, "name": "Car Side Mirror", "supercategory": "Car"},
]
IMAGES = [
    {"id": 7, "file_name": "n02100000_5.JPEG", "height": 20, "width": 30},
    {"id": 8, "file_name": "n03100000_1.JPEG", "height": 20, "width": 30},
    {"id": 9, "file_name": "n02200000_2.JPEG", "height": 20, "width": 30},
]


def square(left: float, top: float, side: float = 6) -> list[float]:
    right, bottom = left + side, top + side
    return [left, top, right, top, right, bottom, left, bottom]


def annotation(number: int, image: int, category: int, *polygons: list[float]) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": list(polygons),
        "area": 36.0,
        "bbox": [0, 0, 6, 6],
        "iscrowd": 0,
    }


ANNOTATIONS = [
    annotation(0, 7, 1, square(2, 3), square(12, 3)),  # hidden in the middle: two polygons
    annotation(1, 7, 0, square(20, 10)),
    annotation(2, 8, 2, square(4, 4)),
    annotation(3, 8, 3, square(15, 4)),
    annotation(4, 9, 0, square(1, 1)),
]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    return write(tmp_path / "train.json")


def write(path: Path, **changes: Any) -> Path:
    content = {"images": IMAGES, "annotations": ANNOTATIONS, "categories": CATEGORIES}
    path.write_text(json.dumps(content | changes))
    return path


def convert(path: Path, root: Path) -> Path:
    for image in IMAGES:
        name = str(image["file_name"]).partition("_")[0]
        (root / "imagenet" / "train" / name).mkdir(parents=True, exist_ok=True)
    write_pinpp(read_part_imagenet([path])[0], root / "pinpp")
    return root / "pinpp"


def test_masks_arrive_unchanged_in_the_layout_of_pinpp(coco: Path, tmp_path: Path) -> None:
    pinpp = convert(coco, tmp_path)
    vocabulary = PartVocabulary.from_pinpp(pinpp, tmp_path / "imagenet")
    assert vocabulary.parts == (
        "n02100000:Body",
        "n02100000:Head",
        "n02200000:Head",
        "n03100000:Body",
        "n03100000:Side Mirror",
    )
    quadruped, _, car = read_annotations(pinpp, vocabulary)
    assert quadruped.key == "n02100000/n02100000_5.JPEG"
    assert [one.part for one in quadruped.instances] == [1, 2]
    body, head = decode_masks(quadruped)
    assert body[3:9, 2:8].all()
    assert body[3:9, 12:18].all()
    assert body.sum() == 72
    assert head[10:16, 20:26].all()
    assert head.sum() == 36
    assert car.instances[1].box == (15, 4, 21, 10)
    stored = json.loads((pinpp / "json" / "n02100000.json").read_text())["annotations"][0]
    assert stored["bbox"] == [2, 3, 16, 6]
    assert stored["area"] == 72
    assert list((pinpp / "including").iterdir()) == []


@pytest.mark.parametrize("form", ["{wnid}/{name}", "train/{wnid}/{name}", "train/{name}"])
def test_folders_in_file_names_change_nothing(coco: Path, form: str, tmp_path: Path) -> None:
    images = [
        one
        | {"file_name": form.format(wnid=one["file_name"].partition("_")[0], name=one["file_name"])}
        for one in IMAGES
    ]
    other = write(tmp_path / "other.json", images=images)
    plain, written = (read_part_imagenet([path])[0] for path in (coco, other))
    assert [(i.object_name, i.file, i.masks) for i in plain] == [
        (i.object_name, i.file, i.masks) for i in written
    ]


def test_object_is_the_wnid_or_else_the_folder() -> None:
    assert object_of("art_deco/art_deco_3.jpg") == ("art_deco", "art_deco_3.jpg")
    assert object_of("train/n01440764_5.JPEG") == ("n01440764", "n01440764_5.JPEG")
    assert object_of("fish_5.jpg") == ("fish", "fish_5.jpg")
    assert object_of("kettle/12.jpg") == ("kettle", "12.jpg")
    with pytest.raises(ValueError, match=r"12\.jpg says no object category"):
        object_of("12.jpg")


def rename(change: Any) -> list[dict[str, Any]]:
    return [change(dict(one)) for one in CATEGORIES]


def without_prefix(one: dict[str, Any]) -> dict[str, Any]:
    return one | {"name": one["name"].partition(" ")[2]}


def without_super_category(one: dict[str, Any]) -> dict[str, Any]:
    return {"id": one["id"], "name": one["name"]}


@pytest.mark.parametrize("change", [without_prefix, without_super_category])
def test_names_without_prefix_or_super_category_mean_the_same(
    coco: Path, change: Any, tmp_path: Path
) -> None:
    other = write(tmp_path / "other.json", categories=rename(change))
    plain, renamed = (read_part_imagenet([path])[0] for path in (coco, other))
    assert [i.masks for i in plain] == [i.masks for i in renamed]


def test_super_categories_come_from_the_masks(coco: Path, tmp_path: Path) -> None:
    images, _ = read_part_imagenet([coco])
    assert super_categories(images) == {
        "n02100000": "Quadruped",
        "n02200000": "Quadruped",
        "n03100000": "Car",
    }
    grouped, problems = group_by_super_category(images)
    assert problems == []
    assert {(i.object_name, m.part) for i in grouped for m in i.masks} == {
        ("Quadruped", "Head"),
        ("Quadruped", "Body"),
        ("Car", "Body"),
        ("Car", "Side Mirror"),
    }
    stray = [*ANNOTATIONS, annotation(9, 7, 3, square(5, 12))]
    grouped, problems = group_by_super_category(
        read_part_imagenet([write(tmp_path / "stray.json", annotations=stray)])[0]
    )
    assert [len(one.masks) for one in grouped] == [2, 2, 1]
    assert len(problems) == 1
    assert "Car Side Mirror, but n02100000 is a Quadruped" in problems[0]


def test_unusable_masks_are_left_out_and_named(tmp_path: Path) -> None:
    bad = [
        annotation(0, 7, 1, square(2, 3), [4.0, 4.0, 8.0, 8.0]),  # as in the released val.json
        annotation(1, 7, 0, [1.0, 2.0]),
        annotation(2, 8, 2, square(400, 4)),  # far outside
        annotation(3, 8, 3, square(15, 4)) | {"segmentation": {"size": [30, 20], "counts": [600]}},
        annotation(4, 9, 0, square(1, 1)) | {"segmentation": {"size": [20, 30], "counts": [5]}},
        annotation(5, 9, 77, square(1, 1)),
        annotation(6, 99, 1, square(1, 1)),
        annotation(7, 9, 1, square(28, 18, 4)),  # partly outside: clipped
        annotation(8, 9, 1) | {"segmentation": None},
        annotation(9, 9, 1, square(1, 1)) | {"image_id": [9]},
        ["an", "annotation"],
    ]
    images, problems = read_part_imagenet([write(tmp_path / "val.json", annotations=bad)])
    assert [(one.object_name, len(one.masks)) for one in images] == [
        ("n02100000", 1),
        ("n02200000", 1),
    ]
    assert images[0].masks[0].area == 36
    assert images[1].masks[0].area == 4
    named = [line for line in problems if ": annotation" in line]
    assert [int(line.split("annotation ")[1].split()[0].strip(":")) for line in named] == [
        0, 1, 2, 3, 4, 5, 6, 8, 9,
    ]  # fmt: skip
    assert "n03100000/n03100000_1.JPEG: no usable mask" in problems
    assert len(problems) == len(named) + 2


def test_run_lengths_are_read_too(tmp_path: Path) -> None:
    runs = annotation(0, 7, 1) | {"segmentation": {"size": [20, 30], "counts": [3, 5, 592]}}
    images, problems = read_part_imagenet([write(tmp_path / "rle.json", annotations=[runs])])
    mask = images[0].masks[0]
    assert (mask.area, mask.box) == (5, [0.0, 3.0, 1.0, 5.0])
    assert problems == [f"{o}: no usable mask" for o in (
        "n03100000/n03100000_1.JPEG", "n02200000/n02200000_2.JPEG",
    )]  # fmt: skip
    pinpp = convert(tmp_path / "rle.json", tmp_path)
    vocabulary = PartVocabulary.from_pinpp(pinpp, tmp_path / "imagenet")
    (image,) = read_annotations(pinpp, vocabulary)
    assert decode_masks(image)[0].sum() == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [*IMAGES, IMAGES[0]]}, "images share an id"),
        ({"images": [*IMAGES, IMAGES[0] | {"id": 10}]}, "n02100000_5.JPEG is listed twice"),
        (
            {"images": [{"id": 1, "file_name": "n1_1.JPEG"}]},
            "n1_1.JPEG has no height and width",
        ),
        ({"images": [IMAGES[0] | {"height": 0}]}, "n02100000_5.JPEG has no height"),
        ({"categories": [{"id": 0, "name": "Car/Body"}]}, "cannot be a part's name"),
        ({"categories": {}}, "no list 'categories'"),
    ],
)
def test_damaged_files_are_refused_by_name(changes: Any, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "train.json", **changes)
    with pytest.raises(ValueError, match=message) as error:
        read_part_imagenet([path])
    assert str(path) in str(error.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train\.json"):
        read_part_imagenet([tmp_path / "train.json"])
