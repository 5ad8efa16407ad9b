from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.labels.png import from_label_map, png_path, read_png, write_png
from datamodules.masks.part_masks import composite


def test_png_is_exact_and_16_bit(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 65_536, (30, 40)).astype(np.int32)
    write_png(tmp_path / "a.png", labels)
    assert np.array_equal(read_png(tmp_path / "a.png"), labels)
    assert (tmp_path / "a.png").read_bytes()[24] == 16  # bit depth in the file's header
    with pytest.raises(ValueError, match="65536 does not fit"):
        write_png(tmp_path / "b.png", np.full((2, 2), 65_536))


def test_name_ends_at_the_first_dot_as_the_authors_code_has_it() -> None:
    path = png_path(Path("out"), "n01440764/n01440764_1.small.JPEG")
    assert path == Path("out/seg/n01440764/n01440764_1.png")


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_grey_and_palette_files_are_read(tmp_path: Path, mode: str) -> None:
    labels = np.random.default_rng(0).integers(0, 5, (6, 7)).astype(np.uint8)
    if mode == "I;16":
        image = Image.fromarray(labels.astype(np.uint16))
    else:
        image = Image.fromarray(labels)
        if mode == "P":
            image.putpalette(range(30))
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_png(tmp_path / "a.png"), labels)


def test_other_files_are_named(tmp_path: Path) -> None:
    Image.new("RGB", (3, 3)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png has mode RGB"):
        read_png(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"b\.png cannot be decoded"):
        read_png(tmp_path / "b.png")


def test_a_map_becomes_one_instance_per_part_with_the_same_composite() -> None:
    labels = np.random.default_rng(0).choice([0, 2, 5], (8, 9)).astype(np.int32)
    row = from_label_map("cat/1.jpg", 3, labels, range(1, 6), Path("1.png"))
    assert [part.part for part in row.instances] == [2, 5]
    assert np.array_equal(composite(row, [(2, 5)]), labels)
    with pytest.raises(ValueError, match=r"1\.png has part id 5, which is no part of cat"):
        from_label_map("cat/1.jpg", 3, labels, (2, 4), Path("1.png"))
