from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.images.image_crops import read_crop


def picture(height: int = 90, width: int = 120) -> Image.Image:
    """Smooth colours with an edge, as JPEG keeps them."""
    y, x = np.mgrid[:height, :width]
    planes = (128 + 100 * np.sin(x / 9), 2 * y, 255 * (x > y))
    return Image.fromarray(np.stack(planes, axis=2).clip(0, 255).astype(np.uint8))


def crop(path: Path, resampling: str, size: int = 48) -> np.ndarray:
    pixels = read_crop(path, size, lambda height, width: (10, 5, 100, 80), resampling)  # type: ignore[arg-type]
    return pixels.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("size", [48, 160], ids=["smaller", "larger"])
def test_both_ways_give_what_pillow_gives(tmp_path: Path, size: int) -> None:
    picture().save(tmp_path / "a.JPEG", quality=95)
    image = Image.open(tmp_path / "a.JPEG").convert("RGB")
    shape, bicubic = (size, size), Image.Resampling.BICUBIC
    whole = np.array(image.resize(shape, bicubic, box=(10, 5, 100, 80)))
    assert np.array_equal(crop(tmp_path / "a.JPEG", "pillow", size), whole)
    cut = np.array(image.crop((10, 5, 100, 80)).resize(shape, bicubic)).astype(int)
    difference = np.abs(crop(tmp_path / "a.JPEG", "torch", size) - cut)
    assert (difference > 1).mean() < 0.01
    assert difference.max() < 10


def test_box_is_asked_for_with_height_and_width_and_is_never_empty(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.JPEG")
    asked = []
    for resampling in ("torch", "pillow"):
        pixels = read_crop(
            tmp_path / "a.JPEG",
            8,
            lambda *size: asked.append(size) or (119.7, 0.2, 120.0, 0.4),  # type: ignore[func-returns-value]
            resampling,  # type: ignore[arg-type]
        )
        assert pixels.shape == (3, 8, 8)
    assert asked == [(90, 120)] * 2


@pytest.mark.parametrize("resampling", ["torch", "pillow"])
@pytest.mark.parametrize(
    ("mode", "form"), [("CMYK", "JPEG"), ("L", "JPEG"), ("RGBA", "PNG"), ("P", "PNG")]
)
def test_odd_files_called_jpeg_are_read(
    tmp_path: Path, mode: str, form: str, resampling: str
) -> None:
    odd = picture().convert(mode)
    odd.save(tmp_path / "odd.JPEG", form)
    reread = Image.open(tmp_path / "odd.JPEG").convert("RGB")
    reread.save(tmp_path / "plain.png")
    found = crop(tmp_path / "odd.JPEG", resampling)
    assert np.array_equal(found, crop(tmp_path / "plain.png", resampling))


@pytest.mark.parametrize("resampling", ["torch", "pillow"])
def test_damaged_and_missing_files_are_named(tmp_path: Path, resampling: str) -> None:
    content = BytesIO()
    picture().save(content, "JPEG")
    (tmp_path / "cut.JPEG").write_bytes(content.getvalue()[:1500])
    (tmp_path / "text.JPEG").write_text("no image")
    for name in ("cut.JPEG", "text.JPEG"):
        with pytest.raises(ValueError, match=rf"{name} cannot be decoded"):
            crop(tmp_path / name, resampling)
    with pytest.raises(FileNotFoundError, match=r"none\.JPEG does not exist"):
        crop(tmp_path / "none.JPEG", resampling)
