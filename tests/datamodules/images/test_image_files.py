"""Every kind of pixel comes out as a viewer shows it, or the file is refused by name."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.files.errors import MissingInputError, UserError
from datamodules.images.image_files import BadImageError, is_image, read_image, read_size

RAMP = np.linspace(0, 1, 64).reshape(8, 8)  # black to white


def grey(path: Path) -> np.ndarray:
    """The one channel of an image whose three are equal."""
    pixels = np.asarray(read_image(path))
    assert pixels.shape == (8, 8, 3)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def save(path: Path, samples: np.ndarray, **options: object) -> Path:
    Image.fromarray(samples).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.pgm"])
def test_16_bit_grey_is_scaled(name: str, tmp_path: Path) -> None:
    path = save(tmp_path / name, np.rint(RAMP * 65535).astype(np.uint16))
    np.testing.assert_array_equal(grey(path), np.rint(np.rint(RAMP * 65535) / 257))


def test_32_bit_grey_is_scaled(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tiff", np.rint(RAMP * (2**31 - 1)).astype(np.int32))
    assert grey(path).max() == 127  # half of what 32 bits can hold


def test_floats_are_scaled(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tiff", RAMP.astype(np.float32))
    np.testing.assert_array_equal(grey(path), np.rint(RAMP.astype(np.float32) * 255))


@pytest.mark.parametrize(
    "samples",
    [
        RAMP.astype(np.float32) * 300,
        RAMP.astype(np.float32) - 0.5,
        np.full((8, 8), np.nan, np.float32),
        (RAMP * 4000).astype(np.int32),
        (RAMP * -4000).astype(np.int32),
    ],
    ids=["floats above 1", "negative floats", "not a number", "range unknown", "negative"],
)
def test_samples_without_a_known_white_are_refused(samples: np.ndarray, tmp_path: Path) -> None:
    path = save(tmp_path / "strange.tiff", samples)
    with pytest.raises(UserError, match=r"strange\.tiff has samples.*save it with 8 or 16 bits"):
        read_image(path)


def test_16_bit_colour(tmp_path: Path) -> None:
    """Pillow reads it as 8 bits by itself; said here so that a change is noticed."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    samples = np.rint(RAMP[..., None] * 65535 * [1, 0.5, 0.25]).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    content += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(content)
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.png")), samples >> 8)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_pixels_lie_on_white(mode: str, tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)  # black, as hidden colours often are
    pixels[:4, :, 3] = 255
    image = Image.fromarray(pixels)
    if mode == "PA":
        palette = image.convert("P")
        palette.putpalette([0, 0, 0, 255, 255, 255])
        palette = Image.fromarray(np.repeat([[0], [1]], 4, axis=0).repeat(8, 1).astype(np.uint8))
        palette = palette.convert("P")
        palette.putpalette([0, 0, 0, 9, 9, 9])
        palette.save(tmp_path / "a.png", transparency=1)
    else:
        image.convert(mode).save(tmp_path / "a.png")
    assert grey(tmp_path / "a.png")[:4].max() == 0
    assert grey(tmp_path / "a.png")[4:].min() == 255


def test_one_transparent_colour(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[4:] = (7, 7, 7)
    Image.fromarray(pixels).save(tmp_path / "a.png", transparency=(7, 7, 7))
    assert grey(tmp_path / "a.png")[:4].max() == 0
    assert grey(tmp_path / "a.png")[4:].min() == 255


@pytest.mark.parametrize(("mode", "suffix"), [("P", "png"), ("1", "png"), ("L", "jpg")])
def test_palettes_and_grey(mode: str, suffix: str, tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[4:] = 255
    Image.fromarray(pixels).convert(mode).save(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(grey(tmp_path / f"a.{suffix}"), pixels, atol=2)


@pytest.mark.parametrize("name", ["a.jpg", "a.tiff"])
def test_cmyk_is_not_inverted(name: str, tmp_path: Path) -> None:
    """Photoshop stores CMYK JPEGs inverted, and Pillow writes them so."""
    red = Image.new("RGB", (8, 8), (255, 0, 0)).convert("CMYK")
    red.save(tmp_path / name)
    np.testing.assert_allclose(np.asarray(read_image(tmp_path / name))[0, 0], (255, 0, 0), atol=3)


def test_orientation_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").size == (20, 10)
    assert read_size(tmp_path / "a.jpg") == (10, 20)


def test_rgb_is_what_pillow_decodes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    save(tmp_path / "a.jpg", pixels)
    expected = np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB"))
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.jpg")), expected)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"none\.png does not exist"):
        read_image(tmp_path / "none.png")


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EMFILE, errno.EACCES])
def test_a_failing_system_does_not_make_a_bad_image(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    path = save(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(UserError) as refusal:
        read_image(path)
    assert not isinstance(refusal.value, BadImageError)
    assert str(refusal.value).startswith(f"{path} cannot be read ({os.strerror(number)}): see to")


def test_what_the_system_says_of_the_file_itself_makes_a_bad_image(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tiff", RAMP.astype(np.float32))
    content = path.read_bytes()
    place = content.index(b"\x11\1\4\0\1\0\0\0")  # where the pixels are, 32 bits without a sign
    before_the_file = b"\x11\1\x09\0\1\0\0\0\xff\xff\xff\xff"
    path.write_bytes(content[:place] + before_the_file + content[place + 12 :])
    (tmp_path / "folder.png").mkdir()
    for file, reason in (path, "Invalid argument"), (tmp_path / "folder.png", "Is a directory"):
        with pytest.raises(BadImageError, match=rf"{file.name} cannot be decoded .*{reason}"):
            read_image(file)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.JPEG", True),
        ("a.webp", True),
        ("a.tif", True),
        ("a.bmp", True),
        ("._a.jpg", False),
        (".jpg", False),
        ("a.gif", False),
        ("a.txt", False),
    ],
)
def test_what_an_image_is(name: str, expected: bool) -> None:
    assert is_image(name) is expected


def test_real_awkward_files(shared: Path) -> None:
    with pytest.raises(UserError, match="short_iccp_chunk"):
        read_image(shared / "awkward" / "short_iccp_chunk.jpg")
    pixels = np.asarray(read_image(shared / "awkward" / "grey_16_bit.png"))
    assert 0 < pixels.mean() < 250
