import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.annotations.part_vocabulary import PartVocabulary
from pipeline.drawing.palette import PALETTE, part_colours
from pipeline.drawing.part_overlays import (
    OUTLINE,
    draw_legend,
    legend_of,
    outline,
    overlay,
    resize,
    show_parts,
)

# Machado et al. 2009, severity 1, on linear RGB
DEUTERANOPIA = np.array(
    [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]], dtype=np.float64
)


def to_lab(colours: np.ndarray, simulated: np.ndarray | None = None) -> np.ndarray:
    rgb = colours / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    if simulated is not None:
        linear = np.clip(linear @ simulated.T, 0, 1)
    xyz = (
        linear
        @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    )
    xyz = xyz / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1
    )


@pytest.mark.parametrize("simulated", [None, DEUTERANOPIA])
def test_the_first_colours_differ_clearly_also_for_the_colour_blind(
    simulated: np.ndarray | None,
) -> None:
    lab = to_lab(PALETTE[:6].astype(np.float64), simulated)
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)]
    assert min(distances) > 24


def test_every_part_of_an_object_has_its_own_colour(shapes_root: Path) -> None:
    vocabulary = PartVocabulary.from_pinpp(shapes_root / "pinpp", shapes_root / "imagenet")
    colours = part_colours(vocabulary)
    assert colours.shape == (vocabulary.num_parts + 1, 3)
    for label in range(len(vocabulary.objects)):
        own = [tuple(colours[part]) for part in vocabulary.parts_of(label)]
        assert len(set(own)) == len(own) >= 3


def test_outline_is_the_inner_border() -> None:
    mask = np.zeros((7, 9), dtype=np.int32)
    mask[1:6, 1:5] = 1
    mask[1:6, 5:8] = 2
    expected = np.zeros_like(mask, dtype=bool)
    expected[[1, 5], 1:8] = True
    expected[1:6, [1, 4, 5, 7]] = True
    assert np.array_equal(outline(mask), expected)


def test_outline_leaves_the_edge_of_the_image_open() -> None:
    assert not outline(np.ones((4, 4), dtype=np.int32)).any()


def test_overlay_mixes_inside_and_leaves_the_background() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    mask = np.zeros((12, 12), dtype=np.int32)
    mask[2:9, 2:9] = 1
    colours = np.array([[0, 0, 0], [200, 40, 10]], dtype=np.uint8)
    painted = overlay(image, mask, colours, alpha=0.5)
    assert np.array_equal(painted[mask == 0], image[mask == 0])
    assert (painted[2, 2:9] == OUTLINE).all()
    grey = np.array(Image.fromarray(image).convert("L"), dtype=float)[3:8, 3:8, None]
    mixed = (80 + grey * 175 / 255 + colours[1]) / 2
    assert np.abs(painted[3:8, 3:8] - mixed).max() <= 1


def test_overlay_paints_thin_parts_solid() -> None:
    image = np.full((9, 9, 3), 120, np.uint8)
    mask = np.zeros((9, 9), dtype=np.int32)
    mask[:, 4] = 1
    colours = np.array([[0, 0, 0], [200, 40, 10]], dtype=np.uint8)
    assert (overlay(image, mask, colours)[:, 4] == colours[1]).all()


def test_overlay_refuses_another_size() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        overlay(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.int32), PALETTE)


def test_resizing_part_ids_makes_no_new_ids() -> None:
    mask = np.array([[0, 3000], [7, 7]], dtype=np.int32)
    large = resize(mask, (10, 6))
    assert large.shape == (10, 6)
    assert set(np.unique(large)) == {0, 7, 3000}
    assert (large[:5, 3:] == 3000).all()


def test_show_parts_keeps_the_proportions() -> None:
    shown = show_parts(np.zeros((30, 60, 3), np.uint8), None, PALETTE, side=100)
    assert shown.shape == (50, 100, 3)


def test_legend_names_only_what_is_visible(shapes_root: Path) -> None:
    vocabulary = PartVocabulary.from_pinpp(shapes_root / "pinpp", shapes_root / "imagenet")
    colours = part_colours(vocabulary)
    mask = np.zeros((3, 3), dtype=np.int32)
    mask[1, 1] = 2
    legend = legend_of([None, mask], vocabulary, colours)
    name, colour = legend[0]
    assert len(legend) == 1
    assert vocabulary.parts[1].endswith(f":{name}")
    assert tuple(bytes.fromhex(colour[1:])) == tuple(colours[2])
    drawn = draw_legend(legend, 120, 2)
    assert (drawn == colours[2]).all(axis=-1).sum() > 80


def test_legend_names_objects_where_there_are_several(shapes_root: Path) -> None:
    vocabulary = PartVocabulary.from_pinpp(shapes_root / "pinpp", shapes_root / "imagenet")
    first, second = (vocabulary.parts_of(label)[0] for label in (0, 1))
    mask = np.array([[0, first], [second, 0]])
    legend = legend_of([mask], vocabulary, part_colours(vocabulary))
    assert [name for name, _ in legend] == [
        vocabulary.parts[first - 1],
        vocabulary.parts[second - 1],
    ]
