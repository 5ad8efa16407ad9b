"""ImageNet's val as unpacked: whoever reads it says so at once, with what mends it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from datamodules.evaluation.background_swaps import BackgroundSwaps
from datamodules.evaluation.class_subsets import ClassSubsets
from datamodules.evaluation.corruption_sets import Corruptions
from datamodules.evaluation.evaluation_sets import EvaluationSetting
from datamodules.evaluation.object_groups import known_groups
from datamodules.files.errors import UserError
from datamodules.images.imagenet_folder import list_images
from datamodules.part_detection import PartDetectionDataModule
from datamodules.part_supervised import PartSupervisedDataModule
from datamodules.robustness import RobustnessDataModule
from tests.datamodules.annotations.annotated import make_set

PIN_OBJECTS = tuple(sorted(known_groups("pin11")))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The tiny set with two val images that no class folder holds."""
    make_set(tmp_path)
    (tmp_path / "imagenet/val").mkdir()
    for number in (1, 2):
        name = f"ILSVRC2012_val_{number:08d}.JPEG"
        Image.new("RGB", (8, 6)).save(tmp_path / "imagenet/val" / name)
    return tmp_path


def setting(root: Path, objects: tuple[str, ...] = ("cat", "flatworm")) -> EvaluationSetting:
    return EvaluationSetting(root / "imagenet", root / "pinpp", objects, 32, 32, 0)


def stage_1(root: Path) -> None:
    data = PartDetectionDataModule(root / "imagenet", root / "pinpp", pinpp_val=root / "pinpp")
    data.setup("fit")


READERS: dict[str, Callable[[Path], object]] = {
    "stage 1": stage_1,
    "stage 3": lambda root: PartSupervisedDataModule(root / "imagenet", root / "pinpp", root),
    "attacks": lambda root: RobustnessDataModule(root / "imagenet", None, {"clean": None}),
    "corruptions": lambda root: Corruptions().sets(setting(root)),
    "subsets": lambda root: ClassSubsets().sets(setting(root, PIN_OBJECTS)),
    "backgrounds": lambda root: BackgroundSwaps(root / "pinpp").sets(setting(root)),
    "list": lambda root: list_images(root / "imagenet/val"),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_it_is_refused_with_what_mends_it(reader: Callable[[Path], object], root: Path) -> None:
    message = rf"val holds 2 images outside of class folders: make sort-val IMAGENET={root}/imagen"
    with pytest.raises(UserError, match=message):
        reader(root)


def test_a_list_of_images_below_val_needs_no_classes_folders(root: Path) -> None:
    names = sorted(path.name for path in (root / "imagenet/val").iterdir())
    (root / "list.txt").write_text("".join(f"{name} 1\n" for name in names))
    data = RobustnessDataModule(
        root / "imagenet", None, {"clean": None}, list_file=root / "list.txt"
    )
    assert sorted(data.image_list) == [(name, 1) for name in names]
    (root / "list.txt").write_text(f"cat/{names[0]} 0\n")
    with pytest.raises(UserError, match="make sort-val"):
        RobustnessDataModule(root / "imagenet", None, {"clean": None}, list_file=root / "list.txt")


def test_images_of_train_outside_of_class_folders_are_refused(root: Path) -> None:
    Image.new("RGB", (8, 6)).save(root / "imagenet/train/lost.png")
    with pytest.raises(UserError, match=r"train holds 1 images outside .*: move them into"):
        list_images(root / "imagenet/train")
