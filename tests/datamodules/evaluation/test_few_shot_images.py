import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.annotations.object_boxes import object_box
from datamodules.annotations.object_parts import Box
from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.evaluation.attack_batches import to_pixels
from datamodules.evaluation.few_shot_images import FewShotImages, read_class_list
from datamodules.evaluation.few_shot_views import FewShotViews
from datamodules.files.errors import UserError
from datamodules.images.image_files import read_image
from datamodules.images.imagenet_folder import list_images
from datamodules.masks.part_labels import ImageParts, PartInstance, decode_masks


def test_boxes_are_those_of_all_masks_together(shapes_root: Path) -> None:
    vocabulary = PartVocabulary.from_pinpp(shapes_root / "pinpp", shapes_root / "imagenet")
    annotated = read_annotations(shapes_root / "pinpp", vocabulary)
    images = FewShotImages.read(shapes_root / "imagenet", shapes_root / "pinpp")
    assert images.views == ("image", "box")
    assert images.boxes is not None
    assert sum(map(len, images.by_class.values())) == len(annotated) == 24
    for parts in annotated:
        rows, columns = np.nonzero(decode_masks(parts).any(axis=0))
        known = images.boxes[parts.key]
        expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert tuple(known.box) == expected
        assert (known.height, known.width) == (parts.height, parts.width)


def test_no_mask_is_no_box() -> None:
    assert object_box(ImageParts("a/1.jpg", 0, 9, 9)) is None
    empty = PartInstance(1, b"", (0.0, 0.0, 0.0, 0.0))
    inside = PartInstance(1, b"", (2.0, 3.0, 5.0, 7.0))
    assert object_box(ImageParts("a/1.jpg", 0, 9, 9, (empty,))) is None
    assert object_box(ImageParts("a/1.jpg", 0, 9, 9, (empty, inside))) == Box(2, 3, 5, 7)


def test_without_annotations_all_val_images_count(shapes_root: Path) -> None:
    images = FewShotImages.read(shapes_root / "imagenet")
    assert images.views == ("image",)
    assert images.root == shapes_root / "imagenet" / "val"
    found = sorted(key for keys in images.by_class.values() for key in keys)
    assert found == [key for key, _ in list_images(images.root)]


def test_annotations_of_val_go_before_those_of_train(shapes_root: Path, tmp_path: Path) -> None:
    """The annotated images as val, where train is not annotated."""
    root = Path(shutil.copytree(shapes_root, tmp_path / "set"))
    shutil.rmtree(root / "imagenet" / "val")
    shutil.copytree(root / "imagenet" / "train", root / "imagenet" / "val")
    images = FewShotImages.read(root / "imagenet", root / "pinpp", root / "pinpp")
    assert images.root == root / "imagenet" / "val"
    assert images.by_class == FewShotImages.read(root / "imagenet", root / "pinpp").by_class


def test_a_list_keeps_to_some_classes(shapes_root: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in (shapes_root / "imagenet" / "train").iterdir())
    path = tmp_path / "classes.txt"
    path.write_text(f"{names[2]} a remark\n\n{names[0]}\n")
    assert read_class_list(path, names) == (names[2], names[0])
    for pinpp in (None, shapes_root / "pinpp"):
        every = FewShotImages.read(shapes_root / "imagenet", pinpp)
        kept = FewShotImages.read(shapes_root / "imagenet", pinpp, classes=path)
        assert kept.by_class == {name: every.by_class[name] for name in (names[0], names[2])}
        assert kept.boxes_hash == every.boxes_hash


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nx\n", "classes.txt:2: x is no class of the data, such as a, b"),
        ("a\nb\na\n", "classes.txt:3: a is listed twice, first in line 1"),
        ("\n", "names no class"),
    ],
)
def test_wrong_lists_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_class_list(path, ("a", "b"))
    with pytest.raises(FileNotFoundError, match=r"list of classes .*gone does not exist"):
        read_class_list(tmp_path / "gone", ("a",))


def annotated(root: Path, width: int, height: int, box: tuple[int, int, int, int]) -> Path:
    """A data set of one image of noise with one rectangular part."""
    left, top, right, bottom = box
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    (root / "train" / "a").mkdir(parents=True)
    Image.fromarray(pixels).save(root / "train" / "a" / "1.png")
    content = {
        "images": [{"id": 1, "file_name": "a/1.png", "width": width, "height": height}],
        "categories": [{"id": 1, "name": "part"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
            }
        ],
    }
    (root / "json").mkdir()
    (root / "json" / "a.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(
    ("size", "box", "margin", "window"),
    [
        ((40, 30), (10, 8, 20, 24), 0.0, (7, 8, 23, 24)),  # widened to a square
        ((40, 30), (0, 8, 4, 24), 0.0, (0, 8, 16, 24)),  # moved into the image
        ((40, 30), (2, 3, 38, 9), 0.0, (2, 0, 38, 30)),  # too wide for a square
        ((40, 30), (12, 10, 22, 20), 0.2, (10, 8, 24, 22)),
    ],
)
def test_views_are_the_centre_and_the_square_around_the_box(
    size: tuple[int, int],
    box: tuple[int, int, int, int],
    margin: float,
    window: tuple[int, int, int, int],
    tmp_path: Path,
) -> None:
    root = annotated(tmp_path, *size, box)
    images = FewShotImages.read(root, root)
    assert images.boxes is not None
    assert tuple(images.boxes["a/1.png"].box) == box
    item = FewShotViews(images, ["a/1.png"], 16, 20, "bicubic", margin)[0]
    picture = read_image(root / "train" / "a" / "1.png")
    assert item["views"].shape == (2, 3, 16, 16)
    assert item["views"][0].equal(to_pixels(picture, 20, 16))
    crop = np.asarray(picture)[window[1] : window[3], window[0] : window[2]]
    expected = np.asarray(Image.fromarray(crop).resize((16, 16), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(item["views"][1].permute(1, 2, 0).numpy(), expected)


def test_a_box_of_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    root = annotated(tmp_path, 40, 30, (1, 1, 9, 9))
    Image.new("RGB", (39, 30)).save(root / "train" / "a" / "1.png")
    images = FewShotImages.read(root, root)
    with pytest.raises(UserError, match="is 39x30, its annotation says 40x30"):
        FewShotViews(images, ["a/1.png"], 16, 20)[0]
