from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datamodules.images import jpeg_rows
from datamodules.images.jpeg_rows import PlainJpeg

pytestmark = pytest.mark.skipif(not jpeg_rows.available(), reason="simplejpeg is not installed")
HEIGHT, WIDTH = 83, 61  # no multiples of a block


def jpeg(mode: str = "RGB", height: int = HEIGHT, **settings: Any) -> bytes:
    """A JPEG of noise, in which every row differs from the next."""
    shape = (height, WIDTH, len(mode))
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels.squeeze(), mode).save(file, "JPEG", **settings)
    return file.getvalue()


def written(folder: Path, content: bytes) -> Path:
    path = folder / "a.JPEG"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "settings",
    [
        {"subsampling": "4:2:0"},
        {"subsampling": "4:2:2"},
        {"subsampling": "4:4:4"},
        {"mode": "L"},
        {"restart_marker_rows": 1},
        {"restart_marker_blocks": 3},
        {"exif": b"Exif\0\0" + bytes(3000), "optimize": True},
    ],
    ids=["420", "422", "444", "grey", "restart rows", "restart blocks", "exif"],
)
def test_any_number_of_rows_is_what_pillow_decodes(tmp_path: Path, settings: Any) -> None:
    path = written(tmp_path, jpeg(**settings))
    plain = PlainJpeg.read(path)
    assert plain is not None
    assert (plain.height, plain.width) == (HEIGHT, WIDTH)
    whole = np.array(Image.open(path).convert("RGB"))
    for stop in range(1, HEIGHT + 1):
        rows = plain.rows(stop)
        assert rows is not None
        assert np.array_equal(rows, whole[:stop]), stop


def test_what_lies_below_is_not_decoded(tmp_path: Path) -> None:
    """Noise in place of the image's end changes the rows there alone."""
    content = jpeg(height=640)
    half = len(content) // 2
    damaged = content[:half] + bytes(len(content) - half - 2) + content[-2:]
    sound, cut = (PlainJpeg.read(written(tmp_path, data)) for data in (content, damaged))
    assert sound is not None
    assert cut is not None
    assert np.array_equal(sound.rows(200), cut.rows(200))
    assert not np.array_equal(sound.rows(640), cut.rows(640))


@pytest.mark.parametrize(
    "content",
    [
        jpeg(progressive=True),
        jpeg("CMYK"),
        jpeg()[:-100],
        jpeg()[:30],
        jpeg() + b"more",
        b"\xff\xd8\xff\xd9",
        b"",
    ],
    ids=["progressive", "CMYK", "cut", "header cut", "appended", "nothing within", "empty"],
)
def test_other_files_are_left_to_pillow(tmp_path: Path, content: bytes) -> None:
    assert PlainJpeg.read(written(tmp_path, content)) is None


def test_other_formats_and_missing_files_are_left_to_pillow(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.JPEG", "PNG")
    assert PlainJpeg.read(tmp_path / "a.JPEG") is None
    assert PlainJpeg.read(tmp_path / "none.JPEG") is None


def test_undecodable_content_is_left_to_pillow(tmp_path: Path) -> None:
    content = jpeg()
    tables = content.index(b"\xff\xc4")  # of the Huffman codes
    plain = PlainJpeg.read(
        written(tmp_path, content[:tables] + b"\xff\xc4\0\x05\xff\xff\xff\xff\xd9")
    )
    assert plain is None or plain.rows(9) is None
