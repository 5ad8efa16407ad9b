import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.images.resized_store import (
    ResizedStore,
    Settings,
    claim,
    resize_object,
    resized_size,
)
from pipeline.annotations.resize_images import resize_images


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """Two categories: large, small and grey images, a PNG called JPEG, one that is damaged."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:90, :120]
    large = np.stack([2 * x, 2 * y, 128 + 90 * np.sin(x / 7)], axis=2).clip(0, 255)
    train = tmp_path / "imagenet" / "train"
    for name in ("cat", "dog"):
        (train / name).mkdir(parents=True)
        Image.fromarray(large.astype(np.uint8)).save(train / name / "large.JPEG", quality=95)
        noise = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(train / name / "small.JPEG")
        Image.fromarray(large[..., 0].astype(np.uint8)).save(train / name / "grey.JPEG")
        Image.fromarray(large.astype(np.uint8)).save(train / name / "png.JPEG", "PNG")
    (train / "dog" / "torn.JPEG").write_bytes((train / "cat" / "large.JPEG").read_bytes()[:900])
    (train / "dog" / "notes.txt").write_text("no image")
    return tmp_path / "imagenet"


def times(folder: Path) -> dict[str, int]:
    return {str(f): f.stat().st_mtime_ns for f in folder.rglob("*.JPEG")}


def test_copies_are_the_images_made_smaller(imagenet: Path, tmp_path: Path) -> None:
    copies, errors = resize_images(imagenet, tmp_path / "out", Settings(48, 95), workers=1)
    assert copies == 8
    assert len(errors) == 1
    assert "torn.JPEG cannot be decoded" in errors[0]
    store = ResizedStore(tmp_path / "out")
    assert store.side == 48
    for name in ("large", "png"):
        with Image.open(store.images / "cat" / f"{name}.JPEG") as copy:
            assert (copy.format, copy.mode, copy.size) == ("JPEG", "RGB", (64, 48))
            original = Image.open(imagenet / "train" / "cat" / f"{name}.JPEG").convert("RGB")
            wanted = np.array(original.resize((64, 48), Image.Resampling.LANCZOS)).astype(int)
            assert np.abs(np.array(copy) - wanted).mean() < 3
    small = Path("cat", "small.JPEG")
    original_bytes = (imagenet / "train" / small).read_bytes()
    assert (store.images / small).read_bytes() == original_bytes
    store.check(["cat/large.JPEG", "dog/small.JPEG"], np.array([90, 20]), np.array([120, 30]))


def test_started_again_it_makes_what_is_missing_or_changed_and_nothing_else(
    imagenet: Path, tmp_path: Path
) -> None:
    out, settings = tmp_path / "out", Settings(48, 90)
    claim(out, settings)
    assert not resize_object((imagenet / "train", out, "cat"))
    with pytest.raises(FileNotFoundError, match="not complete"):
        ResizedStore(out)
    (out / "index" / "cat.parquet").unlink()  # as if it had been stopped just before
    (out / "train" / "cat" / "grey.JPEG").unlink()
    (out / "train" / "cat" / ".png.JPEG.partial").write_text("half a")
    before = times(out)
    resize_images(imagenet, out, settings, workers=1)
    after = times(out)
    assert {key: after[key] for key in before} == before
    assert len(after) == 8

    changed = imagenet / "train" / "dog" / "large.JPEG"
    shutil.copy2(imagenet / "train" / "dog" / "small.JPEG", changed)
    os.utime(changed, ns=(1, 1))  # older than its copy
    (out / "train" / "dog" / "png.JPEG").unlink()
    resize_images(imagenet, out, settings, workers=1)
    again = times(out)
    made = {Path(key).name for key in again if again[key] != after[key]}
    assert made == {"large.JPEG", "png.JPEG"}
    ResizedStore(out).check(["dog/large.JPEG"], np.array([20]), np.array([30]))


def test_several_processes_make_the_same(imagenet: Path, tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        resize_images(imagenet, tmp_path / name, Settings(48), workers)
    for file in (tmp_path / "one").rglob("*"):
        twin = tmp_path / "two" / file.relative_to(tmp_path / "one")
        assert file.is_dir() or file.read_bytes() == twin.read_bytes()


def test_what_does_not_fit_is_refused(imagenet: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="quality from 1 to 95"):
        resize_images(imagenet, out, Settings(48, 100))
    with pytest.raises(ValueError, match="lies within"):
        resize_images(imagenet, imagenet / "small", Settings(48))
    with pytest.raises(ValueError, match="not empty and holds no resized images"):
        claim(imagenet, Settings(48))
    with pytest.raises(FileNotFoundError, match="holds no resized images"):
        ResizedStore(out)
    resize_images(imagenet, out, Settings(48), workers=1)
    with pytest.raises(ValueError, match="name another"):
        resize_images(imagenet, out, Settings(64))
    store = ResizedStore(out)
    with pytest.raises(ValueError, match=r"no copy of dog/torn\.JPEG and 1 more"):
        store.check(["dog/torn.JPEG", "cat/none.JPEG"], np.zeros(2), np.zeros(2))
    with pytest.raises(ValueError, match=r"cat/large\.JPEG was 90x120, its part labels are 45x60"):
        store.check(["cat/large.JPEG"], np.array([45]), np.array([60]))
    (out / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"train\.parquet is damaged"):
        store.check(["cat/large.JPEG"], np.array([90]), np.array([120]))


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((375, 500), (256, 341)), ((500, 375), (341, 256)), ((100, 80), (100, 80))],
)
def test_shorter_side_is_reached_and_never_exceeded(
    size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    assert resized_size(*size, 256) == wanted
