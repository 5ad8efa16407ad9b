from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.evaluation.background_swaps import BackgroundSwaps, without_object
from datamodules.evaluation.evaluation_sets import EvaluationSet, EvaluationSetting
from datamodules.images.imagenet_folder import list_objects


def shapes_setting(root: Path) -> EvaluationSetting:
    return EvaluationSetting(
        root / "imagenet", root / "pinpp", list_objects(root / "imagenet"), 64, 64, 0
    )


def drawn(found: EvaluationSet) -> dict[str, str]:
    return found.settings["backgrounds"]


def test_objects_stay_and_backgrounds_are_of_other_classes(shapes_root: Path) -> None:
    setting = shapes_setting(shapes_root)
    original, swapped = BackgroundSwaps(shapes_root / "val_parts").sets(setting)
    assert (original.name, swapped.name) == ("background/original", "background/swapped")
    assert original.items() == swapped.items()
    assert len(swapped.items()) == 12
    vocabulary = PartVocabulary.from_pinpp(shapes_root / "val_parts", setting.imagenet)
    records = {r.key: r for r in read_annotations(shapes_root / "val_parts", vocabulary)}
    for key, label in swapped.items():
        other = drawn(swapped)[key]
        assert other.split("/")[0] != setting.objects[label] == key.split("/")[0]
        record = records[key]
        rles = [{"size": [64, 64], "counts": part.rle} for part in record.instances]
        mask = coco_mask.decode(coco_mask.merge(rles)).astype(bool)
        with Image.open(setting.imagenet / "val" / key) as image:
            whole = np.array(image.convert("RGB"))
        with Image.open(setting.imagenet / "val" / other) as image:
            behind = np.array(image.convert("RGB"))
        pixels = swapped.image(key).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(pixels[mask], whole[mask])
        # outside of the box around its object, the other image is as it was
        boxes = np.array([part.box for part in records[other].instances])
        left, top = np.floor(boxes[:, :2].min(0)).astype(int)
        right, bottom = np.ceil(boxes[:, 2:].max(0)).astype(int)
        outside = np.ones((64, 64), bool)
        outside[top:bottom, left:right] = False
        np.testing.assert_array_equal(pixels[outside & ~mask], behind[outside & ~mask])
        theirs = coco_mask.decode(
            coco_mask.merge([{"size": [64, 64], "counts": p.rle} for p in records[other].instances])
        ).astype(bool)
        assert not (theirs & outside).any()


def test_the_draw_depends_on_the_seed_alone(shapes_root: Path) -> None:
    setting = shapes_setting(shapes_root)
    source = BackgroundSwaps(shapes_root / "val_parts")
    first, again = source.sets(setting)[1], source.sets(setting)[1]
    other = source.sets(replace(setting, seed=1))[1]
    assert drawn(first) == drawn(again) != drawn(other)
    key = first.items()[0][0]
    assert first.image(key).equal(again.image(key))


def test_the_box_is_filled_with_tiles_of_the_strip() -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, :2] = np.arange(8).reshape(4, 2, 1) + 1  # background left of the object
    filled = without_object(pixels, (2, 1, 5, 4), (0, 0, 2, 4))
    wanted = pixels.copy()
    wanted[1:4, 2:5] = np.array([[1, 2, 1], [3, 4, 3], [5, 6, 5]])[..., None]
    np.testing.assert_array_equal(filled, wanted)
    assert not pixels[:, 2:].any()


def test_what_is_missing_says_why(shapes_root: Path) -> None:
    setting = shapes_setting(shapes_root)
    for found in BackgroundSwaps(None).sets(setting):
        assert "set `annotations` of the source to the folder whose json/" in found.missing
    for found in BackgroundSwaps(shapes_root / "val_parts", least_background=1.0).sets(setting):
        assert "has backgrounds of 0 classes, 2 are needed" in found.missing
    with pytest.raises(FileNotFoundError, match="does not exist: add the image"):
        BackgroundSwaps(shapes_root / "val_parts", split="train").sets(setting)


def test_real_photographs(parts_mini: Path) -> None:
    setting = replace(shapes_setting(parts_mini), image_size=32, resize=36)
    original, swapped = BackgroundSwaps(parts_mini / "val_parts").sets(setting)
    keys = [key for key, _ in swapped.items()][::40]
    assert len(swapped.items()) > 200
    for key in keys:
        assert swapped.image(key).shape == original.image(key).shape == (3, 32, 32)
        assert not swapped.image(key).equal(original.image(key))
