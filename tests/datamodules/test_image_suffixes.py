"""What is an image is defined once: all rooms take annotations of every kind of image file."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.annotations.files import read_discarded
from datamodules.annotations.reports import ObjectJob, report_object
from datamodules.annotations.split_checks import list_split
from datamodules.files.errors import UserError
from datamodules.imagenet_shards import ImageNetShardsDataModule
from datamodules.images.image_files import IMAGE_SUFFIXES, is_image
from datamodules.images.imagenet_folder import list_images
from datamodules.images.resized_store import Settings
from datamodules.labels.pseudo_labels import write_labels
from datamodules.masks.part_labels import ImageParts
from datamodules.part_detection import PartDetectionDataModule
from datamodules.part_supervised import PartSupervisedDataModule
from pipeline.annotations.resize_images import resize_images
from tests.datamodules.annotations.annotated import SIZES, cat_content, make_set, write

SUFFIXES = sorted({*IMAGE_SUFFIXES, ".JPEG", ".WebP"})


@pytest.fixture(params=SUFFIXES)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The tiny set with the cats in another format."""
    suffix: str = request.param
    make_set(tmp_path)
    content = cat_content()
    folder = tmp_path / "imagenet/train/cat"
    for image in content["images"]:
        image["file_name"] = image["file_name"].replace(".jpg", suffix)
    for key, (height, width) in SIZES.items():
        (folder / f"{key}.jpg").unlink()
        Image.new("RGB", (width, height), (90, 90, 90)).save(folder / f"{key}{suffix}")
    write(tmp_path, content)
    (tmp_path / "imagenet/val").symlink_to(tmp_path / "imagenet/train")
    return tmp_path


def keys(root: Path) -> list[str]:
    return [key for key, _ in list_images(root / "imagenet/train")]


def test_all_checks_take_it(root: Path) -> None:
    job = ObjectJob("cat", root / "pinpp", root / "imagenet/train")
    found = report_object(job)
    assert (found.problems, len(found.masks_per_image)) == ((), 3)
    assert sorted(list_split(root / "imagenet/train").keys) == keys(root)
    assert len(keys(root)) == 4
    names = [key.split("/")[1] for key in keys(root) if key.startswith("cat")]
    (root / "discarded.json").write_text(json.dumps({"cat": [f"cat/{name}" for name in names]}))
    assert read_discarded(root / "discarded.json") == {"cat": frozenset(names)}


def test_all_stages_take_it(root: Path) -> None:
    stage_1 = PartDetectionDataModule(root / "imagenet", root / "pinpp")
    stage_1.setup("fit")
    assert stage_1.train_set is not None
    assert stage_1.val_set is not None
    samples = [
        *(data[0, i] for data in (stage_1.train_set, stage_1.val_set) for i in range(len(data)))
    ]
    assert sorted(sample["key"] for sample in samples) == keys(root)
    stage_2 = ImageNetShardsDataModule(root / "imagenet", root / "pinpp")
    assert stage_2.images["key"].to_pylist() == keys(root)
    rows = [ImageParts(key, label, 6, 8) for key, label in list_images(root / "imagenet/train")]
    write_labels(root / "run/labels/00000.parquet", rows)
    resize_images(root / "imagenet", root / "small", Settings(4), workers=1)
    for resized in (None, root / "small"):
        stage_3 = PartSupervisedDataModule(
            root / "imagenet",
            root / "pinpp",
            root / "run",
            image_size=8,
            val_resize=8,
            resized=resized,
            color_jitter=0,
        )
        stage_3.prepare_data()
        stage_3.setup("fit")
        cats = [i for i, (key, _) in enumerate(stage_3.train_set.images) if key[:3] == "cat"]
        assert len(cats) == 3
        grey = torch.stack([stage_3.train_set[0, i]["image"] for i in cats]).float()
        np.testing.assert_allclose(grey, 90, atol=3)
        assert sorted(
            sample["key"] for sample in map(stage_3.val_set.__getitem__, range(4))
        ) == keys(root)


@pytest.mark.parametrize("name", ["2.gif", "2.jfif", ".2.jpg", "2"])
def test_annotations_of_what_is_no_image_are_refused(tmp_path: Path, name: str) -> None:
    root = make_set(tmp_path)
    folder = root / "imagenet/train/cat"
    (folder / "2.jpg").rename(folder / name)
    content = cat_content()
    content["images"][1]["file_name"] = f"cat/{name}"
    file = write(root, content)
    message = f"'cat/{name}' is not taken for an image: its suffix must be one of .bmp, .jpeg, .jpg"
    found = report_object(ObjectJob("cat", root / "pinpp", root / "imagenet/train"))
    assert [problem.affects_training for problem in found.problems] == [True]
    assert message in found.problems[0].message
    stage_1 = PartDetectionDataModule(root / "imagenet", root / "pinpp")
    with pytest.raises(UserError, match=re.escape(f"{file}: image 2: {message}")):
        stage_1.setup("fit")


def test_hidden_ones_and_others_are_no_images() -> None:
    assert not any(is_image(name) for name in ("._1.webp", ".bmp", "1.gif", "1.npy", "1"))
