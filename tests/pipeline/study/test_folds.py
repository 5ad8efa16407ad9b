"""Folds of the cross-validation: every image without annotations once, none that was annotated."""

from pathlib import Path

import pytest

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.images.image_lists import read_image_list
from datamodules.images.imagenet_folder import list_images
from pipeline.study.folds import make_folds


def test_folds_part_the_images_without_annotations(shapes_root: Path, tmp_path: Path) -> None:
    imagenet, pinpp = shapes_root / "imagenet", shapes_root / "pinpp"
    folds = make_folds(imagenet, pinpp, tmp_path, 3)
    everything = {key for split in ("train", "val") for key, _ in list_images(imagenet / split)}
    assert {key for key, _ in list_images(folds.imagenet / "train")} == everything
    assert list_images(folds.imagenet / "val") == list_images(folds.imagenet / "train")
    vocabulary = PartVocabulary.from_pinpp(pinpp, imagenet)
    annotated = {row.key for row in read_annotations(pinpp, vocabulary)}
    tested = [read_image_list(file, vocabulary.objects) for file in folds.held_out]
    assert sorted(key for fold in tested for key, _ in fold) == sorted(everything - annotated)
    assert max(map(len, tested)) - min(map(len, tested)) <= 1
    for label in range(len(vocabulary.objects)):
        counts = [sum(found == label for _, found in fold) for fold in tested]
        assert max(counts) - min(counts) <= 1
    assert make_folds(imagenet, pinpp, tmp_path, 3) == folds


def test_folds_that_cannot_be(shapes_root: Path, tmp_path: Path) -> None:
    imagenet, pinpp = shapes_root / "imagenet", shapes_root / "pinpp"
    with pytest.raises(ValueError, match="2 folds or more, not 1"):
        make_folds(imagenet, pinpp, tmp_path, 1)
    with pytest.raises(ValueError, match="images without part annotations, fewer than 1000 folds"):
        make_folds(imagenet, pinpp, tmp_path, 1000)
    (tmp_path / "imagenet/train/car").mkdir(parents=True)
    (tmp_path / "imagenet/train/car/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(ValueError, match=r"car/gone.jpg is no image of"):
        make_folds(imagenet, pinpp, tmp_path, 3)
