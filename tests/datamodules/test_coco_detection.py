import json
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from datamodules.coco_detection import CocoDetectionDataModule
from datamodules.files.errors import UserError
from tests.datamodules.tiny_coco import write_coco


@pytest.fixture
def coco(shapes_root: Path, tmp_path: Path) -> Path:
    return write_coco(tmp_path / "coco", shapes_root)


def ready(coco: Path, **options: object) -> CocoDetectionDataModule:
    data = CocoDetectionDataModule(coco, **options)  # type: ignore[arg-type]
    data.setup("fit")
    return data


def test_class_ids_are_mapped_and_boxes_are_corners(coco: Path) -> None:
    data = ready(coco)
    content = json.loads((coco / "annotations" / "instances_val2017.json").read_text())
    assert data.num_classes == 4
    assert data.val_set is not None
    for index, image in enumerate(content["images"]):
        sample = data.val_set[0, index]
        rows = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        assert sample["key"].endswith(image["file_name"])
        assert sample["truth"]["labels"].tolist() == [
            {3: 1, 7: 2, 11: 3}[a["category_id"]] for a in rows
        ]
        corners = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in rows)]
        torch.testing.assert_close(
            sample["truth"]["boxes"], torch.tensor(corners).float().reshape(-1, 4)
        )
        with Image.open(coco / sample["key"]) as picture:
            assert torch.equal(sample["image"], pil_to_tensor(picture))
    assert sample["target"]["boxes"].shape == (0, 4)  # the image without boxes is measured


@pytest.mark.parametrize("skip", [True, False])
def test_training_leaves_images_without_boxes_out_as_wished(coco: Path, skip: bool) -> None:
    data = ready(coco, skip_empty=skip)
    assert data.train_set is not None
    assert len(data.train_set) == (12 if skip else 13)
    batches = list(data.train_dataloader())
    assert sum(len(batch["image"]) for batch in batches) == 12


def test_crowds_are_truth_but_no_target_and_boxes_are_clipped(coco: Path) -> None:
    path = coco / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"] += [
        {"id": 901, "image_id": 900, "category_id": 3, "bbox": [-5, 2, 20, 90], "iscrowd": 1},
        {"id": 902, "image_id": 900, "category_id": 7, "bbox": [60, 2, 20, 9], "iscrowd": 0},
        {"id": 903, "image_id": 900, "category_id": 7, "bbox": [64, 2, 20, 9], "iscrowd": 0},
    ]
    path.write_text(json.dumps(content))
    data = ready(coco)
    assert data.val_set is not None
    sample = data.val_set[0, len(data.val_set) - 1]
    assert sample["truth"]["boxes"].tolist() == [[0, 2, 15, 48], [60, 2, 64, 11]]
    assert sample["truth"]["iscrowd"].tolist() == [1, 0]
    assert sample["target"]["boxes"].tolist() == [[60, 2, 64, 11]]


def test_flip_and_resize_move_boxes_with_the_pixels(coco: Path) -> None:
    plain, flipped = ready(coco, flip=0.0).train_set, ready(coco, flip=1.0).train_set
    resized = ready(coco, flip=0.0, size=(96, 160)).train_set
    assert plain is not None
    assert flipped is not None
    assert resized is not None
    before, after, larger = plain[0, 1], flipped[0, 1], resized[0, 1]
    width = before["image"].shape[2]
    assert torch.equal(after["image"], before["image"].flip(2))
    x1, y1, x2, y2 = before["target"]["boxes"].unbind(1)
    mirrored = torch.stack([width - x2, y1, width - x1, y2], 1)
    torch.testing.assert_close(after["target"]["boxes"], mirrored)
    assert larger["image"].shape == (3, 96, 96)
    torch.testing.assert_close(larger["target"]["boxes"], before["target"]["boxes"] * 96 / 64)


def test_errors_name_file_and_mend(coco: Path) -> None:
    with pytest.raises(FileNotFoundError, match="instances_test2017"):
        CocoDetectionDataModule(coco, val="test2017")
    path = coco / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["category_id"] = 5
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"train2017\.json: annotation 1 is of category 5"):
        ready(coco)
    path.write_text(json.dumps(content | {"categories": content["categories"][:2]}))
    with pytest.raises(ValueError, match="differ in the categories blue"):
        ready(coco)
    path.write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        ready(coco)


def change(coco: Path, split: str, edit: Callable[[dict[str, Any]], object]) -> None:
    path = coco / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_categories_are_matched_by_name(coco: Path) -> None:
    """Ids hold within a file: the same names under other numbers are the same classes."""
    before = ready(coco).train_set
    other = {3: 30, 7: 11, 11: "seven"}

    def renumber(content: dict[str, Any]) -> None:
        for category in content["categories"]:
            category["id"] = other[category["id"]]
        for annotation in content["annotations"]:
            annotation["category_id"] = other[annotation["category_id"]]
        content["categories"].reverse()

    change(coco, "train2017", renumber)
    after = ready(coco).train_set
    assert before is not None
    assert after is not None
    assert after.annotations.labels.tolist() == before.annotations.labels.tolist()
    assert len(set(before.annotations.labels.tolist())) == 3


def test_an_image_listed_again_shifts_no_boxes(coco: Path) -> None:
    before = ready(coco).val_set
    change(coco, "val2017", lambda content: content["images"].insert(2, content["images"][0]))
    with pytest.warns(UserWarning, match="image 1 is listed twice; one is used"):
        after = ready(coco).val_set
    assert before is not None
    assert after is not None
    assert after.annotations.files == before.annotations.files
    np.testing.assert_array_equal(after.annotations.ends, before.annotations.ends)
    np.testing.assert_array_equal(after.annotations.boxes, before.annotations.boxes)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("annotations", {"bbox": None}, r"annotation 1 has the bbox None: four numbers"),
        ("annotations", {"bbox": "1 2 3 4"}, r"annotation 1 has the bbox '1 2 3 4'"),
        ("annotations", {"bbox": [1, 2, 3]}, r"annotation 1 has the bbox \[1, 2, 3\]"),
        ("annotations", {"bbox": [1, 2, "3", 4]}, r"annotation 1 has the bbox"),
        ("annotations", {"bbox": [0, 0, float("nan"), 4]}, r"annotation 1 has the bbox"),
        ("annotations", {"image_id": 4711}, r"annotation 1 is of image 4711, which is not listed"),
        ("annotations", {"image_id": [1]}, r"annotation 1 is of image"),
        ("images", {"id": {}}, r"entry 0 of images is .* without an id"),
        ("images", {"width": None}, r"image 1 has width None, no whole number of pixels"),
        ("images", {"height": 63.5}, r"image 1 has height 63\.5, no whole number"),
        ("images", {"width": "64"}, r"image 1 has width '64'"),
        ("images", {"file_name": 7}, r"image 1 has the file_name 7"),
        ("images", {"file_name": "gone.jpg"}, r"gone\.jpg and 0 more of the 13 images .* do not"),
        ("images", {"id": 2}, r"image 2 is listed twice with other content"),
        ("categories", {"name": " "}, r"category 3 has the name ' '"),
        ("categories", {"name": "green"}, r"category 7 is green like another category"),
        ("categories", {"id": 2.5}, r"entry 0 of categories is .* without an id"),
    ],
)
def test_every_bad_entry_is_named_with_file_and_id(
    kind: str, changes: dict[str, Any], message: str, coco: Path
) -> None:
    change(coco, "val2017", lambda content: content[kind][0].update(changes))
    with pytest.raises(ValueError, match=rf"instances_val2017\.json.*{message}|{message}"):
        ready(coco)


def test_ids_as_text_and_a_byte_order_mark_change_nothing(coco: Path) -> None:
    path = coco / "annotations" / "instances_val2017.json"
    before = ready(coco).val_set
    content = json.loads(path.read_text())
    content["images"][0]["id"] = str(content["images"][0]["id"])
    content["annotations"][1]["image_id"] = float(content["annotations"][1]["image_id"])
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())
    with pytest.warns(UserWarning, match=r"instances_val2017.json: 2 ids are written like '1'"):
        after = ready(coco).val_set
    assert before is not None
    assert after is not None
    assert after.annotations.files == before.annotations.files
    np.testing.assert_array_equal(after.annotations.ends, before.annotations.ends)
    np.testing.assert_array_equal(after.annotations.boxes, before.annotations.boxes)


def test_whole_sizes_written_as_floats_are_sizes(coco: Path) -> None:
    before = ready(coco).val_set

    def as_floats(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image["width"] = float(image["width"])

    change(coco, "val2017", as_floats)
    after = ready(coco).val_set
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(after.annotations.sizes, before.annotations.sizes)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from(["images", "annotations", "categories"]),
    key=st.sampled_from(["id", "image_id", "category_id", "bbox", "width", "height", "file_name"]),
    value=st.one_of(
        st.none(), st.booleans(), st.integers(-3, 20), st.floats(), st.text(max_size=3),
        st.lists(st.integers(-5, 80), max_size=5), st.just({}),
    ),
)  # fmt: skip
def test_whatever_stands_in_an_entry_is_read_or_refused(
    coco: Path, kind: str, key: str, value: object
) -> None:
    path = coco / "annotations" / "instances_val2017.json"
    whole = path.read_text()
    content = json.loads(whole)
    content[kind][0][key] = value
    path.write_text(json.dumps(content))
    with warnings.catch_warnings(), suppress(UserError):  # any other exception is a defect
        warnings.simplefilter("ignore")
        ready(coco)
    path.write_text(whole)
