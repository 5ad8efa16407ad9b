import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from datamodules.coco_detection import CocoDetectionDataModule
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
    with pytest.raises(ValueError, match="category 5"):
        ready(coco)
    path.write_text(json.dumps(content | {"categories": content["categories"][:2]}))
    with pytest.raises(ValueError, match="other categories"):
        ready(coco)
    path.write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        ready(coco)
