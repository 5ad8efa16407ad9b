"""Cut and corrupted files of all formats are read as RGB or refused by name, and nothing else."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datamodules.files.errors import UserError
from datamodules.images.image_files import read_header, read_image
from datamodules.labels.png import read_png


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def real_files() -> dict[str, bytes]:
    """A photograph-like image in the formats and kinds of pixels that data sets hold."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    frames = {"save_all": True, "append_images": [image.convert("L")]}
    return {
        "jpeg": encoded(image, "JPEG"),
        "progressive": encoded(image, "JPEG", progressive=True),
        "cmyk": encoded(image.convert("CMYK"), "JPEG"),
        "png": encoded(image, "PNG"),
        "palette": encoded(image.convert("P"), "PNG", transparency=3),
        "transparent": encoded(image.convert("RGBA"), "PNG"),
        "16 bits": encoded(deep, "PNG"),
        "tiff": encoded(image, "TIFF"),
        "tiff lzw": encoded(image, "TIFF", compression="tiff_lzw"),
        "tiff jpeg": encoded(image, "TIFF", compression="jpeg"),
        "tiff floats": encoded(Image.fromarray(pixels[..., 0] / np.float32(255)), "TIFF"),
        "webp": encoded(image, "WEBP"),
        "webp lossless": encoded(image, "WEBP", lossless=True),
        "ppm": encoded(image, "PPM"),
        "bmp": encoded(image, "BMP"),
        "gif": encoded(image.convert("P"), "GIF"),
        "animated gif": encoded(image.convert("L"), "GIF", **frames),
    }


REAL_FILES = real_files()


@pytest.mark.parametrize("content", REAL_FILES.values(), ids=REAL_FILES)
def test_whole_files_are_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.JPEG").write_bytes(content)
    assert read_image(tmp_path / "a.JPEG").size == (24, 16)


def read_or_refused(read: Callable[[Path], Any], path: Path) -> Any:
    """What a reader gives, None where it refuses the file by name; any other error gets out."""
    try:
        return read(path)
    except UserError as error:
        if str(path) not in str(error):
            raise AssertionError(f"{error} does not name {path}") from error
        return None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("content", REAL_FILES.values(), ids=REAL_FILES)
@settings(max_examples=25, derandomize=True, deadline=None, database=None)
@given(data=st.data())
def test_cut_and_corrupted_files_are_read_or_refused_by_name(
    content: bytes, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    damaged = bytearray(content)
    if data.draw(st.booleans(), "cut"):
        del damaged[data.draw(st.integers(0, len(damaged) - 1), "length") :]
    else:  # most of what decides is at the beginning
        places = st.integers(0, min(100, len(damaged) - 1)) | st.integers(0, len(damaged) - 1)
        for place in data.draw(st.lists(places, min_size=1, max_size=4), "places"):
            damaged[place] = data.draw(st.sampled_from([0, 1, 255]) | st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.JPEG"
    path.write_bytes(damaged)
    read_or_refused(read_header, path)
    read_or_refused(read_png, path)
    image = read_or_refused(read_image, path)
    if image is not None:
        pixels = np.asarray(image)
        assert pixels.dtype == np.uint8
        assert pixels.shape == (image.height, image.width, 3)
        assert pixels.size
