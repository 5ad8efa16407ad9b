"""Each corruption against a plain derivation of it."""

import colorsys
import math
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from datamodules.corruptions import CORRUPTIONS, SEVERITIES, blur, corrupt, corruption_seed, weather
from datamodules.corruptions.digital import affine_map, warp_affine
from datamodules.corruptions.frost_overlays import OVERLAY_FILES


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    blocks = np.random.RandomState(3).randint(0, 256, (12, 12, 3)).astype(np.uint8)
    return blocks.repeat(4, 0).repeat(4, 1)


@pytest.fixture(scope="module")
def overlays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frost")
    random = np.random.RandomState(5)
    for index, name in enumerate(OVERLAY_FILES):
        pixels = random.randint(0, 256, (60 + index, 70, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def test_gaussian_noise(image: np.ndarray) -> None:
    noise = np.random.RandomState(1).normal(size=image.shape) * 0.26
    expected = (np.clip(image / 255 + noise, 0, 1) * 255).astype(np.uint8)
    np.testing.assert_array_equal(corrupt(image, "gaussian_noise", 4, 1), expected)


def test_shot_noise(image: np.ndarray) -> None:
    counts = np.random.RandomState(1).poisson(image / 255 * 12)
    expected = (np.clip(counts / 12, 0, 1) * 255).astype(np.uint8)
    np.testing.assert_array_equal(corrupt(image, "shot_noise", 3, 1), expected)


def test_impulse_noise() -> None:
    grey = np.full((200, 200, 3), 77, np.uint8)
    found = corrupt(grey, "impulse_noise", 5, 0)
    shares = [(found == value).mean() for value in (0, 77, 255)]
    np.testing.assert_allclose(shares, [0.135, 0.73, 0.135], atol=0.005)


def test_defocus_blur(image: np.ndarray) -> None:
    line = np.arange(-8, 9)
    disk = (np.hypot(*np.meshgrid(line, line)) <= 3).astype(float)
    blurred = ndimage.convolve(image / 255, (disk / disk.sum())[:, :, None], mode="mirror")
    found = corrupt(image, "defocus_blur", 1, 0).astype(int)
    assert np.abs(found - np.floor(blurred * 255)).max() <= 1


def test_glass_blur_scatters_in_the_order_of_the_loop(image: np.ndarray) -> None:
    expected = image.copy()
    random = np.random.RandomState(9)
    for h in range(48 - 4, 4, -1):
        for w in range(48 - 4, 4, -1):
            dx, dy = random.randint(-4, 4, size=(2,))
            expected[h, w] = expected[h + dy, w + dx]
    found = blur._scatter(image, 4, np.random.RandomState(9))
    np.testing.assert_array_equal(found, expected)


def test_motion_blur(image: np.ndarray) -> None:
    angle = math.radians(np.random.RandomState(2).uniform(-45, 45))
    weights = [math.exp(-(i**2) / (2 * 5**2)) for i in range(31)]
    found = corrupt(image, "motion_blur", 2, 2)
    for y, x in [(0, 0), (20, 47), (47, 10), (31, 8)]:
        total = np.zeros(3)
        for i, weight in enumerate(weights):
            at_y = min(max(y + math.ceil(i * math.sin(angle) - 0.5), 0), 47)
            at_x = min(max(x + math.ceil(i * math.cos(angle) - 0.5), 0), 47)
            total += weight * image[at_y, at_x]
        assert np.abs(found[y, x] - total / sum(weights)).max() <= 1


def test_zoom_blur_magnifies_the_centre() -> None:
    ramp = np.tile(np.linspace(0, 1, 64)[None, :, None], (64, 1, 3))
    larger = blur.magnify(ramp, 2)
    # 32 samples of the middle spread over 64: a ramp of half the range
    np.testing.assert_allclose(larger[:, [0, -1], 0].mean(0), ramp[0, [16, 47], 0], atol=1e-12)
    np.testing.assert_allclose(np.diff(larger[5, :, 0]), (ramp[0, 47, 0] - ramp[0, 16, 0]) / 63)
    flat = np.full((64, 64, 3), 80, np.uint8)
    assert np.abs(corrupt(flat, "zoom_blur", 5, 0).astype(int) - 80).max() <= 1


def test_snow_only_brightens_and_is_symmetric_on_flat_images() -> None:
    flat = np.full((64, 64, 3), 60, np.uint8)
    found = corrupt(flat, "snow", 1, 4).astype(int)
    # 0.8 x + 0.2 (1.5 x + 0.5) without flakes
    assert found.min() == int((0.8 * 60 / 255 + 0.2 * (1.5 * 60 / 255 + 0.5)) * 255)
    np.testing.assert_array_equal(found, np.rot90(found, 2))
    assert found.max() > found.min()


def test_frost(image: np.ndarray, overlays: Path) -> None:
    random = np.random.RandomState(7)
    index = random.randint(5)
    with Image.open(overlays / OVERLAY_FILES[index]) as file:
        frost = np.asarray(file.convert("RGB"))
    top, left = random.randint(0, frost.shape[0] - 48), random.randint(0, frost.shape[1] - 48)
    expected = np.clip(0.7 * image + 0.7 * frost[top : top + 48, left : left + 48], 0, 255)
    found = corrupt(image, "frost", 3, 7, overlays)
    np.testing.assert_array_equal(found, expected.astype(np.uint8))


def test_frost_says_what_it_lacks(image: np.ndarray, overlays: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"frost1\.png"):
        corrupt(image, "frost", 1, 0, tmp_path)
    with pytest.raises(ValueError, match="must be larger than the image of 96x96"):
        corrupt(np.zeros((96, 96, 3), np.uint8), "frost", 1, 0, overlays)


def test_fog_is_a_diamond_square_cloud() -> None:
    random, size = np.random.RandomState(6), 8
    heights, step, swing = np.zeros((size, size)), size, 100.0

    def wobbles(count: int) -> list[float]:
        return [swing * each for each in random.uniform(-swing, swing, count)]

    while step >= 2:
        half, corners = step // 2, range(0, size, step)
        cells = [(y, x) for y in corners for x in corners]
        for (y, x), wobble in zip(cells, wobbles(len(cells)), strict=True):
            around = [(0, 0), (step, 0), (0, step), (step, step)]
            mean = sum(heights[(y + dy) % size, (x + dx) % size] for dy, dx in around) / 4
            heights[y + half, x + half] = mean + wobble
        for down, across in ((0, half), (half, 0)):
            for (y, x), wobble in zip(cells, wobbles(len(cells)), strict=True):
                around = [(half, 0), (-half, 0), (0, half), (0, -half)]
                mean = sum(
                    heights[(y + down + dy) % size, (x + across + dx) % size] for dy, dx in around
                )
                heights[y + down, x + across] = mean / 4 + wobble
        step, swing = half, swing / 1.7
    heights -= heights.min()
    found = weather._plasma(8, 1.7, np.random.RandomState(6))
    np.testing.assert_allclose(found, heights / heights.max(), rtol=1e-9, atol=1e-12)


def test_brightness(image: np.ndarray) -> None:
    found = corrupt(image, "brightness", 2, 0)
    for y, x in [(0, 0), (13, 30), (44, 5)]:
        hue, saturation, value = colorsys.rgb_to_hsv(*(image[y, x] / 255))
        expected = np.array(colorsys.hsv_to_rgb(hue, saturation, min(value + 0.2, 1))) * 255
        assert np.abs(found[y, x] - expected).max() <= 1


def test_contrast(image: np.ndarray) -> None:
    for channel in range(3):
        mean = image[:, :, channel].mean()
        expected = mean + (image[:, :, channel] - mean) * 0.1
        found = corrupt(image, "contrast", 4, 0)[:, :, channel]
        assert np.abs(found - expected).max() <= 1


def test_elastic_transform_moves_pixels_alike() -> None:
    y, x = np.mgrid[:64, :64].astype(float)
    ramps = np.stack([x * 4, y * 4, x * 4], axis=2).astype(np.uint8)
    found = corrupt(ramps, "elastic_transform", 3, 2).astype(int)
    np.testing.assert_array_equal(found[:, :, 0], found[:, :, 2])
    # away from the borders the affine map moves by at most 5 px and a third more, the field by 2
    inner = (slice(16, 48), slice(16, 48))
    for channel in (0, 1):
        moved = np.abs(found[inner][:, :, channel] - ramps[inner][:, :, channel].astype(int)) / 4
        assert 0 < moved.max() < 20


def test_affine_warp_is_that_of_scipy_to_a_32nd_pixel() -> None:
    smooth = ndimage.gaussian_filter(np.random.RandomState(0).rand(40, 40, 1), (4, 4, 0))
    corners = np.array([[30, 30], [30, 10], [10, 10]], np.float32)
    moved = corners + np.array([[2, -1], [0.5, 3], [-2, 1]], np.float32)
    forward = affine_map(corners, moved)
    np.testing.assert_allclose(corners @ forward[:, :2].T + forward[:, 2], moved, atol=1e-5)
    backward = np.linalg.inv(np.vstack([forward, [0, 0, 1]]))[[1, 0]][:, [1, 0, 2]]
    expected = ndimage.affine_transform(
        smooth[:, :, 0], backward[:, :2], backward[:, 2], order=1, mode="mirror"
    )
    found = warp_affine(smooth.astype(np.float32), forward)[:, :, 0]
    steepest = np.abs(np.gradient(smooth[:, :, 0])).max()
    assert np.abs(found - expected).max() < 2 * steepest / 32


def test_pixelate_and_jpeg(image: np.ndarray) -> None:
    whole = Image.fromarray(image)
    small = whole.resize((24, 24), Image.Resampling.BOX)
    expected = np.asarray(small).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(corrupt(image, "pixelate", 2, 0), expected)
    file = BytesIO()
    whole.save(file, "JPEG", quality=15)
    with Image.open(file) as decoded:
        np.testing.assert_array_equal(corrupt(image, "jpeg_compression", 3, 0), np.asarray(decoded))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_small_and_oblong_images(name: str, overlays: Path) -> None:
    image = np.random.RandomState(0).randint(0, 256, (32, 50, 3)).astype(np.uint8)
    before = image.copy()
    for severity in SEVERITIES:
        found = corrupt(image, name, severity, 3, overlays)
        assert found.shape == image.shape
        assert found.dtype == np.uint8
        assert (found != image).any()
        np.testing.assert_array_equal(found, corrupt(image, name, severity, 3, overlays))
    np.testing.assert_array_equal(image, before)


def test_refuses_what_it_cannot_corrupt(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="'haze' is none of gaussian_noise"):
        corrupt(image, "haze", 1, 0)
    with pytest.raises(ValueError, match="severity 6 of fog"):
        corrupt(image, "fog", 6, 0)
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\)"):
        corrupt(image[:16], "fog", 1, 0)


def test_seeds_differ_by_everything() -> None:
    seeds = {
        corruption_seed(seed, key, name, severity)
        for seed in (0, 1)
        for key in ("a/1.jpg", "a/2.jpg")
        for name in CORRUPTIONS
        for severity in SEVERITIES
    }
    assert len(seeds) == 2 * 2 * 75
    assert all(0 <= seed < 2**32 for seed in seeds)
