"""Class folders: hidden entries are no data, and a class without images is named."""

from pathlib import Path

import pytest
from PIL import Image

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.images.image_files import images_below, visible_folders
from datamodules.images.imagenet_folder import list_images, list_objects
from datamodules.labels.pseudo_labels import label_files


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """Two classes in train, one in val, with what macOS and notebooks leave behind."""
    for name in ("train/b", "train/a", "val/b", "train/.ipynb_checkpoints", "val/.thumbs"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.JPEG")
        (tmp_path / name / "._1.JPEG").write_bytes(b"\0\5\x16\7")
        (tmp_path / name / ".DS_Store").write_bytes(b"")
    return tmp_path


def test_hidden_folders_are_no_classes_and_hidden_files_no_images(imagenet: Path) -> None:
    assert list_objects(imagenet) == ("a", "b")
    assert list_images(imagenet / "train") == [("a/1.JPEG", 0), ("b/1.JPEG", 1)]
    assert list_images(imagenet / "val") == [("b/1.JPEG", 1)]
    assert [path.name for path in visible_folders(imagenet / "train")] == ["a", "b"]
    below = [str(path.relative_to(imagenet)) for path in images_below(imagenet)]
    assert below == ["train/a/1.JPEG", "train/b/1.JPEG", "val/b/1.JPEG"]


def test_every_suffix_of_torchvision_is_an_image(imagenet: Path) -> None:
    for suffix in ("webp", "bmp", "tif", "png", "jpg"):
        Image.new("RGB", (8, 8)).save(imagenet / "train" / "a" / f"2.{suffix}")
    assert len(list_images(imagenet / "train")) == 7


def test_a_class_without_images_is_named(imagenet: Path) -> None:
    (imagenet / "train" / "c").mkdir()
    with pytest.raises(ValueError, match=r"train/c holds no images.*fill or remove it"):
        list_images(imagenet / "train")
    assert list_images(imagenet / "val") == [("b/1.JPEG", 1)]


def test_hidden_annotations_relations_and_shards_are_not_read(
    shapes_root: Path, tmp_path: Path
) -> None:
    vocabulary = PartVocabulary.from_pinpp(shapes_root / "pinpp", shapes_root / "imagenet")
    pinpp = tmp_path / "pinpp"
    for folder, name in (("json", "*.json"), ("including", "*.txt")):
        (pinpp / folder).mkdir(parents=True)
        for file in (shapes_root / "pinpp" / folder).glob(name):
            (pinpp / folder / file.name).symlink_to(file.resolve())
            (pinpp / folder / f"._{file.name}").write_bytes(b"\0\5\x16\7")
    again = PartVocabulary.from_pinpp(pinpp, shapes_root / "imagenet")
    assert again.content_hash == vocabulary.content_hash
    known = read_annotations(shapes_root / "pinpp", vocabulary, shapes_root / "imagenet" / "train")
    assert read_annotations(pinpp, again, shapes_root / "imagenet" / "train") == known
    (tmp_path / "run" / "labels").mkdir(parents=True)
    for name in ("00000.parquet", "._00000.parquet"):
        (tmp_path / "run" / "labels" / name).write_bytes(b"")
    assert [path.name for path in label_files(tmp_path / "run")] == ["00000.parquet"]
