"""An EXIF orientation changes no pixel, and what was annotated on the turned image is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from datamodules.annotations.reports import ObjectJob, ObjectReport, report_object
from datamodules.annotations.split_checks import decode_images
from datamodules.detection.annotated_images import read_annotated
from datamodules.evaluation.attack_batches import UnitDataset
from datamodules.evaluation.background_swaps import BackgroundSwaps
from datamodules.evaluation.evaluation_sets import EvaluationSetting
from datamodules.files.errors import UserError
from datamodules.images.image_files import read_header, read_image
from datamodules.images.imagenet_folder import list_images
from datamodules.labels.pseudo_labels import write_labels
from datamodules.masks.part_labels import ImageParts
from datamodules.part_supervised import PartSupervisedDataModule
from datamodules.robustness import RobustnessDataModule
from pipeline.labelling.import_labels import import_labels
from tests.datamodules.annotations.annotated import cat_content, make_set, write


def save_turned(path: Path, size: tuple[int, int], orientation: int) -> Path:
    """Writes an image of height x width whose EXIF says that it is to be turned."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", size[::-1], (9, 9, 9)).save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_header_says_it(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = save_turned(tmp_path / f"a.{suffix}", (10, 20), orientation)
    assert read_header(path) == (10, 20, orientation)
    assert read_image(path).size == (20, 10)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_by_its_own_format(tmp_path: Path, orientation: int) -> None:
    """Pillow does it; what matters is that size and pixels agree, and nothing turns them again."""
    path = save_turned(tmp_path / "a.tiff", (10, 20), orientation)
    header, image = read_header(path), read_image(path)
    assert header == (image.height, image.width, 1)
    assert header.size == ((20, 10) if orientation > 4 else (10, 20))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense", b"", None])
def test_damaged_exif_turns_nothing(tmp_path: Path, exif: bytes | None) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", **({} if exif is None else {"exif": exif}))
    assert read_header(tmp_path / "a.jpg") == (10, 20, 1)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_orientations_that_do_not_exist_turn_nothing(tmp_path: Path, value: int) -> None:
    assert read_header(save_turned(tmp_path / "a.jpg", (10, 20), value)).orientation == 1


def report(root: Path, stored: tuple[int, int], orientation: int) -> ObjectReport:
    """Report on the tiny data set, image 2 of which is annotated as 8x6."""
    save_turned(root / "imagenet/train/cat/2.jpg", stored, orientation)
    return report_object(ObjectJob("cat", root / "pinpp", root / "imagenet/train"))


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_annotations_of_the_turned_image_are_refused_with_the_reason(
    tmp_path: Path, orientation: int
) -> None:
    found = report(make_set(tmp_path), (6, 8), orientation)
    assert [p.kind for p in found.problems] == ["size_mismatch"]
    reason = (
        f"is 6x8, listed as 8x6 (height x width): that is the size of the image as its EXIF "
        f"orientation {orientation} turns it"
    )
    assert reason in found.problems[0].message
    assert found.masks_per_image == (1, 2)
    path = tmp_path / "imagenet/train/cat/2.jpg"
    with pytest.raises(UserError, match=rf"2\.jpg is 8x6.*orientation {orientation} turns it"):
        read_annotated(path, 8, 6)
    with pytest.raises(UserError, match=r"2\.jpg is 8x6.*correct one of them"):
        read_annotated(path, 9, 6)


def test_stage_3_and_imports_say_the_reason_as_well(tmp_path: Path) -> None:
    root = make_set(tmp_path)
    save_turned(root / "imagenet/train/cat/2.jpg", (6, 8), 6)
    (root / "imagenet/val").symlink_to(root / "imagenet/train")
    rows = [ImageParts(key, label, 6, 8) for key, label in list_images(root / "imagenet/train")]
    write_labels(root / "run/labels/00000.parquet", rows)
    data = PartSupervisedDataModule(
        root / "imagenet", root / "pinpp", root / "run", image_size=8, val_resize=8
    )
    data.prepare_data()  # the annotation, 8x6, replaces the row
    data.setup("fit")
    position = [key for key, _ in data.train_set.images].index("cat/2.jpg")
    with pytest.raises(UserError, match=r"2\.jpg is 6x8, its part.*8x6: that is .*orientation 6"):
        _ = data.train_set[0, position]
    given = {"imagenet": root / "imagenet", "pinpp": root / "pinpp", "allow_missing": True}
    with pytest.raises(UserError, match=r"2\.jpg is 6x8 \(height x width\): that is .*tation 6"):
        import_labels(root / "pinpp", root / "out", "coco", **given)


@pytest.mark.parametrize(
    ("orientation", "reason"), [(1, "correct one of them"), (6, "that is .*orientation 6 turns it")]
)
def test_evaluation_refuses_parts_of_other_sides(
    tmp_path: Path, orientation: int, reason: str
) -> None:
    root = make_set(tmp_path)
    message = rf"cat/2\.jpg is 8x6, its annotation says 6x8 \(width x height\): {reason}"
    (root / "imagenet/val").symlink_to(root / "imagenet/train")
    given = {"image_size": 4, "resize": 4, "part_annotations": root / "pinpp"}
    attacked = (root / "imagenet", root / "pinpp", {"clean": None})
    sound = RobustnessDataModule(*attacked, **given)
    save_turned(root / "imagenet/train/cat/2.jpg", (6, 8), orientation)
    with pytest.raises(UserError, match=message):  # before the first attack
        RobustnessDataModule(*attacked, **given)
    units = UnitDataset(sound.units, sound.split, 4, 4, sound.annotations)
    with pytest.raises(UserError, match=message):  # images that changed since
        list(units)
    source = BackgroundSwaps(root / "pinpp")
    setting = EvaluationSetting(*attacked[:2], ("cat", "flatworm"), 4, 4, 0)
    with pytest.raises(UserError, match=message):
        source.sets(setting)[1].image("cat/2.jpg")
    draws = (source.sets(replace(setting, seed=seed))[1] for seed in range(50))
    behind = next(d for d in draws if d.settings["backgrounds"]["flatworm/1.jpg"] == "cat/2.jpg")
    with pytest.raises(UserError, match=message):
        behind.image("flatworm/1.jpg")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_another_size_is_not_blamed_on_the_orientation(tmp_path: Path, orientation: int) -> None:
    found = report(make_set(tmp_path), (6, 9), orientation)
    assert [p.kind for p in found.problems] == ["size_mismatch"]
    assert "EXIF" not in found.problems[0].message


def test_annotations_of_the_stored_pixels_are_used_and_said(tmp_path: Path) -> None:
    found = report(make_set(tmp_path), (8, 6), 6)
    assert [(p.kind, p.affects_training) for p in found.problems] == [("turned_image", False)]
    assert "annotated as stored" in found.problems[0].message
    assert found.masks_per_image == (1, 1, 2)


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_mirrored_and_upside_down_cannot_be_told_by_size(tmp_path: Path, orientation: int) -> None:
    found = report(make_set(tmp_path), (8, 6), orientation)
    assert [(p.kind, p.affects_training) for p in found.problems] == [
        ("turned_image_unclear", False)
    ]
    assert f"orientation {orientation}; 8x6" in found.problems[0].message


def test_a_square_cannot_be_told_by_size(tmp_path: Path) -> None:
    content = cat_content()
    content["images"][1] |= {"height": 8, "width": 8}
    content["annotations"][1]["segmentation"] = {"size": [8, 8], "counts": [10, 3, 51]}
    root = make_set(tmp_path)
    write(root, json.loads(json.dumps(content)))
    found = report(root, (8, 8), 8)
    assert [p.kind for p in found.problems if "EXIF" in p.message] == ["turned_image_unclear"]


def test_turned_images_are_counted_when_all_are_decoded(tmp_path: Path) -> None:
    for number, orientation in enumerate((1, 3, 6)):
        save_turned(tmp_path / f"{number}.jpg", (4, 6), orientation)
    np.save(tmp_path / "3.npy", np.zeros(3))
    found = decode_images((tmp_path, ("0.jpg", "1.jpg", "2.jpg", "3.npy")))
    assert found.turned == 2
    assert [key for key, _ in found.damaged] == ["3.npy"]
