"""The corruptions against hashes of the published generator's images, and against its port."""

import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from datamodules.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from datamodules.corruptions.frost_overlays import overlay_folder

HASHES = Path(__file__).with_name("imagenet_c_hashes.json")


def published_input() -> np.ndarray:
    y, x = np.mgrid[:224, :224]
    image = np.stack([(x * y) // 197 % 256, (x + 2 * y) // 3, 255 - (x ^ y)], axis=2)
    image = image.astype(np.uint8)
    image[60:120, 40:140] = (37, 200, 64)
    return image


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name != "frost"])
def test_equals_the_published_generator(name: str) -> None:
    """Hashes of what the published code made, with the libraries of its time, seed = severity."""
    expected = json.loads(HASHES.read_text())[name]
    made = [
        hashlib.sha256(corrupt(published_input(), name, severity, severity).tobytes()).hexdigest()
        for severity in SEVERITIES
    ]
    assert [each[:16] for each in made] == expected


def test_frost_equals_the_published_generator() -> None:
    if overlay_folder(None) is None:
        pytest.skip("the frost overlays come with imagecorruptions, which is not installed")
    expected = json.loads(HASHES.read_text())["frost"]
    made = [corrupt(published_input(), "frost", each, each).tobytes() for each in SEVERITIES]
    assert [hashlib.sha256(each).hexdigest()[:16] for each in made] == expected


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_equals_imagecorruptions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The port, where it runs; motion blur may differ by the port's missing 16-bit rounding."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("imagecorruptions")
    if name in ("frost", "elastic_transform", "snow"):
        pytest.skip(f"the port defines {name} otherwise than the published generator")
    monkeypatch.setattr(np.random, "default_rng", lambda _=None: np.random)
    for severity in SEVERITIES:
        np.random.seed(severity)  # noqa: NPY002
        try:
            theirs = package.corrupt(published_input(), severity, name)
        except (AttributeError, TypeError) as error:
            pytest.skip(f"imagecorruptions fails with these NumPy and scikit-image: {error}")
        ours = corrupt(published_input(), name, severity, severity)
        most = 1 if name == "motion_blur" else 0
        assert np.abs(ours.astype(int) - theirs).max() <= most
