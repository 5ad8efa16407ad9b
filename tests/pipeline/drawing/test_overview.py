from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.drawing.overview import write_overview
from pipeline.drawing.palette import PALETTE


def test_overview_is_a_small_picture(shapes_root: Path, tmp_path: Path) -> None:
    out = write_overview(
        shapes_root / "imagenet", shapes_root / "pinpp", tmp_path / "docs" / "overview.png"
    )
    content = out.read_bytes()
    picture = Image.open(BytesIO(content))
    assert picture.format == "PNG"
    assert len(content) <= 300_000
    assert picture.width > picture.height > 100
    pixels = np.array(picture.convert("RGB"))
    assert (pixels == PALETTE[0]).all(axis=-1).sum() > 80


def test_overview_shrinks_until_it_fits(shapes_root: Path, tmp_path: Path) -> None:
    folders = (shapes_root / "imagenet", shapes_root / "pinpp")
    large = write_overview(*folders, tmp_path / "large.png")
    small = write_overview(*folders, tmp_path / "small.png", max_bytes=40_000)
    assert small.stat().st_size <= 40_000 < large.stat().st_size
