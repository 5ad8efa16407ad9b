from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from datamodules.corruptions import CORRUPTIONS, SEVERITIES
from datamodules.corruptions.frost_overlays import OVERLAY_FILES, overlay_folder
from datamodules.evaluation.attack_batches import to_pixels
from datamodules.evaluation.corruption_errors import (
    ALEXNET_ERRORS,
    accuracy_by_corruption,
    corruption_errors,
    mean_corruption_error,
)
from datamodules.evaluation.corruption_sets import CORRUPTIONS_3D, Corruptions, Corruptions3D
from datamodules.evaluation.evaluation_sets import EvaluationSet, EvaluationSetting
from datamodules.images.image_files import read_image
from datamodules.images.imagenet_folder import list_images, list_objects


def setting_of(root: Path, seed: int = 0) -> EvaluationSetting:
    imagenet = root / "imagenet"
    return EvaluationSetting(imagenet, root / "pinpp", list_objects(imagenet), 48, 56, seed)


class Keys(Dataset[torch.Tensor]):
    def __init__(self, chosen: EvaluationSet) -> None:
        self.chosen = chosen

    def __len__(self) -> int:
        return len(self.chosen.items())

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.chosen.image(self.chosen.items()[index][0])


@pytest.fixture(scope="module")
def overlays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frost")
    for name in OVERLAY_FILES:
        Image.new("RGB", (60, 50), (200, 210, 220)).save(folder / name)
    return folder


def test_75_sets_of_the_val_images(shapes_root: Path, overlays: Path) -> None:
    setting = setting_of(shapes_root)
    found = Corruptions(frost_images=overlays).sets(setting)
    assert [each.name for each in found] == [f"{c}/{s}" for c in CORRUPTIONS for s in SEVERITIES]
    assert {each.table for each in found} == {"corruptions"}
    assert not any(each.missing for each in found)
    images = list_images(setting.imagenet / "val")
    key, _ = images[0]
    clean = to_pixels(read_image(setting.imagenet / "val" / key), 56, 48)
    for each in found:
        assert list(each.items()) == images
        image = each.image(key)
        assert image.shape == (3, 48, 48)
        assert image.dtype == torch.uint8
        assert not torch.equal(image, clean)


def test_draws_depend_on_seed_key_corruption_and_severity(shapes_root: Path) -> None:
    by_seed = [
        {each.name: each for each in Corruptions().sets(setting_of(shapes_root, seed))}
        for seed in (0, 1)
    ]
    fog, other = by_seed[0]["fog/2"], by_seed[1]["fog/2"]
    key = fog.items()[0][0]
    assert torch.equal(fog.image(key), fog.image(key))
    assert not torch.equal(fog.image(key), other.image(key))


def test_any_worker_makes_the_same_image(shapes_root: Path) -> None:
    sets = {each.name: each for each in Corruptions().sets(setting_of(shapes_root))}
    for name in ("glass_blur/4", "gaussian_noise/1"):
        here = torch.stack([sets[name].image(key) for key, _ in sets[name].items()])
        loader = DataLoader(Keys(sets[name]), batch_size=5, num_workers=2)
        assert torch.equal(torch.cat(list(loader)), here)


def test_frost_without_overlays_is_missing_with_a_reason(shapes_root: Path, tmp_path: Path) -> None:
    for folder in [tmp_path] if overlay_folder(None) else [None, tmp_path]:
        found = Corruptions(frost_images=folder).sets(setting_of(shapes_root))
        assert len(found) == 75
        assert {each.name.split("/")[0] for each in found if each.missing} == {"frost"}
        assert all("frost1.png" in each.missing for each in found if each.missing)


def test_too_small_overlays_are_missing(shapes_root: Path, tmp_path: Path) -> None:
    for name in OVERLAY_FILES:
        Image.new("RGB", (60, 48)).save(tmp_path / name)
    found = Corruptions(frost_images=tmp_path).sets(setting_of(shapes_root))
    assert all("not larger than 48 px" in each.missing for each in found if each.missing)
    assert sum(bool(each.missing) for each in found) == 5


def test_without_images_all_are_missing(shapes_root: Path, tmp_path: Path) -> None:
    (tmp_path / "imagenet" / "train" / "a").mkdir(parents=True)
    for source in (Corruptions(), Corruptions(folder=tmp_path / "nowhere")):
        found = source.sets(setting_of(tmp_path))
        assert len(found) == 75
        assert all("does not exist" in each.missing for each in found)


@pytest.mark.parametrize("archive", [".", "weather"])
def test_published_folders(shapes_root: Path, tmp_path: Path, archive: str) -> None:
    setting = setting_of(shapes_root)
    pixels = np.random.RandomState(0).randint(0, 256, (48, 48, 3)).astype(np.uint8)
    folder = tmp_path / archive / "fog" / "3" / setting.objects[1]
    folder.mkdir(parents=True)
    Image.fromarray(pixels).save(folder / "val_1.JPEG", quality=85)
    sets = {each.name: each for each in Corruptions(folder=tmp_path).sets(setting)}
    assert len(sets) == 75
    assert [name for name, each in sets.items() if not each.missing] == ["fog/3"]
    assert "snow/1 does not exist" in sets["snow/1"].missing
    (item,) = sets["fog/3"].items()
    assert item == (f"{setting.objects[1]}/val_1.JPEG", 1)
    with Image.open(folder / "val_1.JPEG") as file:
        expected = torch.from_numpy(np.array(file)).permute(2, 0, 1)
    assert torch.equal(sets["fog/3"].image(item[0]), expected)


def test_as_jpeg_loses_a_little(shapes_root: Path) -> None:
    setting = setting_of(shapes_root)
    plain, lossy = (
        {each.name: each for each in Corruptions(as_jpeg=each).sets(setting)}["contrast/1"]
        for each in (False, True)
    )
    key = plain.items()[0][0]
    difference = (plain.image(key).int() - lossy.image(key).int()).abs()
    assert 0 < difference.max() < 80
    assert plain.settings != lossy.settings


def test_mean_corruption_error() -> None:
    alexnet = {f"{c}/{s}": 1 - ALEXNET_ERRORS[c] for c in CORRUPTIONS for s in SEVERITIES}
    assert mean_corruption_error(alexnet) == pytest.approx(1)
    perfect = dict.fromkeys(alexnet, 1.0)
    assert mean_corruption_error(perfect | {"sketch": 0.1}) == 0
    halved = {name: 1 - (1 - accuracy) / 2 for name, accuracy in alexnet.items()}
    assert corruption_errors(halved) == pytest.approx(dict.fromkeys(CORRUPTIONS, 0.5))
    ramp = {f"fog/{severity}": 0.2 * severity for severity in SEVERITIES}
    assert accuracy_by_corruption(ramp) == pytest.approx({"fog": 0.6})
    with pytest.raises(ValueError, match=r"not complete: frost$"):
        mean_corruption_error({n: a for n, a in alexnet.items() if n != "frost/2"})


def test_published_folders_of_3dcc(shapes_root: Path, tmp_path: Path) -> None:
    setting = setting_of(shapes_root)
    pixels = np.random.RandomState(1).randint(0, 256, (48, 48, 3)).astype(np.uint8)
    for name in ("fog_3d/1", "h265_crf/5"):
        folder = tmp_path / name / setting.objects[2]
        folder.mkdir(parents=True)
        Image.fromarray(pixels).save(folder / "ILSVRC2012_val_00000001.JPEG", quality=95)
    sets = {each.name: each for each in Corruptions3D(tmp_path).sets(setting)}
    assert list(sets) == [f"{c}/{s}" for c in CORRUPTIONS_3D for s in SEVERITIES]
    assert {each.table for each in sets.values()} == {"corruptions_3d"}
    assert not set(CORRUPTIONS_3D) & set(CORRUPTIONS)  # their records have folders of their own
    measured = [name for name, each in sets.items() if not each.missing]
    assert measured == ["fog_3d/1", "h265_crf/5"]
    assert f"{tmp_path / 'flash' / '2'} does not exist (ImageNet-3DCC)" in sets["flash/2"].missing
    (item,) = sets["fog_3d/1"].items()
    assert item == (f"{setting.objects[2]}/ILSVRC2012_val_00000001.JPEG", 2)
    with Image.open(tmp_path / "fog_3d/1" / item[0]) as file:
        expected = torch.from_numpy(np.array(file)).permute(2, 0, 1)
    assert torch.equal(sets["fog_3d/1"].image(item[0]), expected)


def test_without_a_folder_of_3dcc_each_corruption_says_so(shapes_root: Path) -> None:
    found = Corruptions3D().sets(setting_of(shapes_root))
    assert [each.name for each in found] == list(CORRUPTIONS_3D)
    assert all(each.missing.startswith("no folder given") for each in found)
