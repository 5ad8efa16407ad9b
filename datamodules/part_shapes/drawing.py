"""Drawing of PartShapes: pose, texture, background and clutter of one image."""

import colorsys
from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from datamodules.part_shapes.objects import OBJECTS, Piece, own_hue, part_names

Rng = np.random.Generator
Split = Literal["train", "val"]

MIN_VISIBLE = 12  # pixels; less of a part is not annotated
MISSING = 0.15  # chance that a part other than the first is absent
OWN_HUE = {"train": 0.9, "val": 0.5}  # chance of a part's own hue and texture
OWN_BACKGROUND = {"train": 0.8, "val": 0.0}  # chance of the object's own background
TEXTURES = ("stripes", "checks", "dots", "waves")


def _pose(pieces: Sequence[Piece], size: int, rng: Rng) -> list[np.ndarray]:
    """Outlines in pixels: pieces turned about their pivots, the whole turned, flipped, placed."""
    frames: list[np.ndarray] = []
    for piece in pieces:
        turn = np.deg2rad(rng.uniform(-piece.swing, piece.swing))
        frame = np.eye(3)
        frame[:2, :2] = _rotation(turn) * rng.uniform(0.88, 1.12, 2)
        frame[:2, 2] = piece.pivot - frame[:2, :2] @ piece.pivot
        frames.append(frames[piece.parent] @ frame if frames else frame)
    view = _rotation(np.deg2rad(rng.uniform(-30, 30))) * rng.choice([[1, 1], [-1, 1]])
    outlines = [
        (piece.outline @ frame[:2, :2].T + frame[:2, 2]) @ view.T
        for piece, frame in zip(pieces, frames, strict=True)
    ]
    low = np.min([outline.min(axis=0) for outline in outlines], axis=0)
    high = np.max([outline.max(axis=0) for outline in outlines], axis=0)
    share = 0.35 + 0.5 * np.sqrt(rng.random())  # of the image's side; more large than small
    scale = share * size / (high - low).max()
    reach = 0.45 * (high - low) * scale  # a little less than half: some objects leave the image
    centre = rng.uniform(reach, size - reach)
    return [(outline - (low + high) / 2) * scale + centre for outline in outlines]


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _cover(outline: np.ndarray, size: int) -> np.ndarray:
    """(size, size) uint8: 0 outside, 2 inside, 1 on the rim."""
    canvas = Image.new("L", (size, size))
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in outline.tolist()], fill=2, outline=1)
    return np.asarray(canvas)


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


def _paint(
    image: np.ndarray, where: np.ndarray, colour: np.ndarray, texture: str, depth: float, rng: Rng
) -> None:
    """Fill the bool mask `where` of `image`; `depth` is the texture's relative amplitude."""
    ys, xs = np.nonzero(where)
    wave = 2 * np.pi / (len(image) * rng.uniform(0.08, 0.14))
    u, v = _rotation(rng.uniform(0, np.pi)) @ np.stack([xs, ys]) * wave
    if texture == "stripes":
        pattern = np.sign(np.sin(u))
    elif texture == "checks":
        pattern = np.sign(np.sin(u) * np.sin(v))
    elif texture == "dots":
        pattern = np.where(np.sin(u) * np.sin(v) > 0.4, 1.0, -0.4)
    else:
        pattern = np.sin(u + 2 * np.sin(v / 2))
    image[ys, xs] = colour * (1 + depth * pattern[:, None])


def _clutter(image: np.ndarray, count: int, rng: Rng) -> np.ndarray:
    """Paint dull shapes over `image`; returns the bool mask of what they cover."""
    size = len(image)
    covered = np.zeros((size, size), dtype=bool)
    for _ in range(count):
        corners = int(rng.integers(3, 8))
        angle = 2 * np.pi * (np.arange(corners) + rng.uniform(0, 0.6, corners)) / corners
        radius = size * rng.uniform(0.05, 0.13)
        circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        where = _cover(circle * radius + rng.uniform(0, size, 2), size) > 0
        colour = _colour(rng.random(), rng.uniform(0.1, 0.45), rng.uniform(0.25, 0.75))
        _paint(image, where, colour, str(rng.choice(TEXTURES)), 0.25, rng)
        covered |= where
    return covered


def _backdrop(object_name: str, split: Split, size: int, rng: Rng) -> np.ndarray:
    image = np.zeros((size, size, 3), dtype=np.float32)
    texture, hue = str(rng.choice(TEXTURES)), rng.random()
    if rng.random() < OWN_BACKGROUND[split]:
        names = part_names(object_name)
        texture = TEXTURES[list(OBJECTS).index(object_name) % len(TEXTURES)]
        # Opposite the first part, between the hues of two others
        hue = own_hue(object_name, names[0]) + (len(names) // 2 + 0.5) / len(names)
    colour = _colour(hue + rng.uniform(-0.03, 0.03), rng.uniform(0.3, 0.5), rng.uniform(0.35, 0.6))
    _paint(image, np.ones((size, size), dtype=bool), colour, texture, 0.22, rng)
    _clutter(image, int(rng.integers(4, 9)), rng)
    return image


def _looks(object_name: str, split: Split, rng: Rng) -> dict[str, tuple[np.ndarray, str]]:
    """Colour and texture of each part."""
    looks: dict[str, tuple[np.ndarray, str]] = {}
    for rank, part in enumerate(part_names(object_name)):
        texture, hue = str(rng.choice(TEXTURES)), rng.random()
        if rng.random() < OWN_HUE[split]:
            texture = TEXTURES[(list(OBJECTS).index(object_name) + rank) % len(TEXTURES)]
            hue = own_hue(object_name, part) + rng.uniform(-0.02, 0.02)
        looks[part] = _colour(hue, rng.uniform(0.85, 1), rng.uniform(0.8, 1)), texture
    return looks


def draw_example(
    object_name: str, split: Split, size: int, rng: Rng
) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]]:
    """Draw one image.

    Returns:
        The image, (size, size, 3) uint8, and per visible instance its part name and visible area,
        (size, size) bool. Masks are disjoint but for parts included in another: they lie inside it.
    """
    pieces = OBJECTS[object_name]
    image = _backdrop(object_name, split, size, rng)
    absent = rng.random(len(pieces)) < MISSING
    absent[0] = False
    absent &= absent.cumsum() <= 1  # two missing parts would often leave nothing to recognise
    owner = np.full((size, size), -1)
    outlines, looks = _pose(pieces, size, rng), _looks(object_name, split, rng)
    for index in sorted(range(len(pieces)), key=lambda index: not pieces[index].behind):
        piece = pieces[index]
        absent[index] |= absent[piece.parent]
        if absent[index]:
            continue
        cover = _cover(outlines[index], size)
        if piece.inside:
            cover = np.where(owner == piece.parent, cover, 0)
        _paint(image, cover > 0, *looks[piece.part], 0.15, rng)
        image[cover == 1] *= 0.45
        owner[cover > 0] = index
    if rng.random() < 0.4:
        owner[_clutter(image, int(rng.integers(1, 4)), rng)] = -1

    light = np.linspace(-1, 1, size) * rng.uniform(0, 0.15)
    image *= 1 + (light if rng.random() < 0.5 else light[:, None])[..., None]
    image += 5 * rng.standard_normal(image.shape, dtype=np.float32)
    instances = []
    for index, piece in enumerate(pieces):
        visible = owner == index
        for other, guest in enumerate(pieces):
            if guest.inside and guest.parent == index:
                visible |= owner == other
        if visible.sum() >= MIN_VISIBLE:
            instances.append((piece.part, visible))
    return image.clip(0, 255).astype(np.uint8), instances
