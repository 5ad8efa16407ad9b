"""PartShapes: a small rendered data set in the layout of ImageNet and PartImageNet++.

Objects are articulated figures of named parts. Hue and texture tell the part, and the background
tells the object, far more often in train than in val, so that shape is what generalises.
"""

import argparse
import colorsys
import json
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from rich.progress import track

Split = Literal["train", "val"]

VERSION = 1  # raise it when the same arguments draw other pixels
MIN_VISIBLE = 12  # pixels; less of a part is not annotated
MISSING = 0.15  # chance that a part other than the first is absent
OWN_HUE = {"train": 0.9, "val": 0.5}  # chance of a part's own hue and texture
OWN_BACKGROUND = {"train": 0.8, "val": 0.0}  # chance of the object's own background
TEXTURES = ("stripes", "checks", "dots", "waves")


class Piece(NamedTuple):
    """One outline of an object; pieces of the same part are separate instances.

    Coordinates are the object's own: x right, y down, about -1 to 1. The first piece of an object
    carries the others; `parent` is the index of the piece that this one turns with, `swing` the
    largest turn about `pivot` in degrees. `behind`: drawn before the first piece. `inside`: clipped
    to the parent and included in it (PIN++'s inclusion relation).
    """

    part: str
    outline: np.ndarray
    pivot: tuple[float, float] = (0.0, 0.0)
    swing: float = 0.0
    parent: int = 0
    behind: bool = False
    inside: bool = False


def _poly(*corners: float) -> np.ndarray:
    return np.array(corners, dtype=float).reshape(-1, 2)


def _blob(*corners: float) -> np.ndarray:
    points = _poly(*corners)
    for _ in range(2):  # Chaikin's corner cutting
        ahead = np.roll(points, -1, axis=0)
        pairs = np.stack([0.75 * points + 0.25 * ahead, 0.25 * points + 0.75 * ahead], axis=1)
        points = pairs.reshape(-1, 2)
    return points


def _oval(x: float, y: float, rx: float, ry: float, lobes: int = 0) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = 1 + 0.12 * np.cos(lobes * angle) * (lobes > 0)
    return np.stack([x + rx * radius * np.cos(angle), y + ry * radius * np.sin(angle)], axis=1)


def _ring(x: float, y: float, outer: float, inner: float, start: int, stop: int) -> np.ndarray:
    angle = np.deg2rad(np.linspace(start, stop, 32))
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.concatenate([circle * outer, circle[::-1] * inner]) + [x, y]


OBJECTS: dict[str, tuple[Piece, ...]] = {
    "fish": (
        Piece("body", _blob(-0.95, 0, -0.5, -0.52, 0.3, -0.48, 0.85, 0, 0.3, 0.48, -0.5, 0.52)),
        Piece("tail", _poly(0.5, 0, 1.2, -0.55, 1.0, 0, 1.2, 0.55), (0.55, 0), 28, behind=True),
        Piece("fin", _poly(-0.4, -0.3, 0.05, -0.9, 0.4, -0.25), (0, -0.3), 22, behind=True),
        Piece("eye", _oval(-0.48, -0.08, 0.15, 0.15), inside=True),
    ),
    "car": (
        Piece("body", _poly(-1.05, 0.32, -1.05, -0.02, -0.9, -0.12, 0.9, -0.12, 1.1, 0.05, 1.1, 0.32)),
        Piece("cabin", _poly(-0.7, 0, -0.42, -0.62, 0.38, -0.62, 0.7, 0), swing=7, behind=True),
        Piece("window", _poly(-0.42, -0.14, -0.26, -0.48, 0.24, -0.48, 0.42, -0.14), parent=1, inside=True),
        Piece("wheel", _oval(-0.58, 0.34, 0.28, 0.28), (-0.5, 0.1), 8),
        Piece("wheel", _oval(0.58, 0.34, 0.28, 0.28), (0.5, 0.1), 8),
    ),
    "tree": (
        Piece("crown", _oval(0, -0.35, 0.78, 0.68, lobes=7)),
        Piece("trunk", _poly(-0.15, 0, 0.15, 0, 0.26, 1.05, -0.26, 1.05), (0, 0.2), 14, behind=True),
        Piece("fruit", _oval(-0.34, -0.42, 0.16, 0.16), (0, -0.3), 40, inside=True),
        Piece("fruit", _oval(0.32, -0.12, 0.16, 0.16), (0, -0.3), 40, inside=True),
    ),
    "rocket": (
        Piece("hull", _poly(0, -1.15, 0.22, -0.85, 0.36, -0.4, 0.36, 0.6, -0.36, 0.6, -0.36, -0.4, -0.22, -0.85)),
        Piece("fin", _poly(-0.3, 0.05, -0.85, 0.8, -0.3, 0.6), (-0.3, 0.4), 14, behind=True),
        Piece("fin", _poly(0.3, 0.05, 0.85, 0.8, 0.3, 0.6), (0.3, 0.4), 14, behind=True),
        Piece(
            "flame",
            _poly(-0.28, 0.5, -0.34, 0.95, -0.14, 0.82, 0, 1.3, 0.14, 0.82, 0.34, 0.95, 0.28, 0.5),
            (0, 0.55), 18, behind=True,
        ),
        Piece("window", _oval(0, -0.22, 0.19, 0.19), inside=True),
    ),
    "bird": (
        Piece("body", _oval(0, 0.12, 0.62, 0.42)),
        Piece("tail", _poly(0.35, 0, 1.15, -0.2, 1.05, 0.1, 1.15, 0.4, 0.4, 0.32), (0.45, 0.15), 24, behind=True),
        Piece("head", _oval(-0.58, -0.38, 0.32, 0.32), (-0.35, -0.05), 22),
        Piece("beak", _poly(-0.78, -0.58, -1.3, -0.36, -0.78, -0.2), (-0.75, -0.4), 12, 2, behind=True),
        Piece("wing", _blob(-0.3, 0.2, -0.05, -0.75, 0.45, -1.05, 0.75, -0.75, 0.4, 0.3), (0, 0.15), 30),
    ),
    "chair": (
        Piece("seat", _poly(-0.55, 0, 0.5, 0, 0.72, 0.36, -0.7, 0.36)),
        Piece("back", _poly(-0.6, -1.1, 0.5, -1.1, 0.5, 0.05, -0.55, 0.05), (0, 0.05), 13, behind=True),
        Piece("leg", _poly(-0.68, 0.25, -0.4, 0.25, -0.48, 1.1, -0.72, 1.1), (-0.55, 0.3), 14, behind=True),
        Piece("leg", _poly(0.42, 0.25, 0.7, 0.25, 0.74, 1.1, 0.5, 1.1), (0.55, 0.3), 14, behind=True),
    ),
    "mug": (
        Piece("body", _poly(-0.65, -0.6, 0.5, -0.6, 0.4, 0.8, -0.55, 0.8)),
        Piece("handle", _ring(0.45, 0.05, 0.52, 0.27, -95, 95), (0.45, 0.05), 16, behind=True),
        Piece("rim", _oval(-0.075, -0.62, 0.62, 0.19), (0, -0.6), 5),
        Piece("label", _poly(-0.38, 0, 0.2, 0, 0.17, 0.45, -0.33, 0.45), (-0.08, 0.2), 14, inside=True),
    ),
    "butterfly": (
        Piece("body", _oval(0, 0, 0.14, 0.72)),
        Piece("forewing", _blob(0, 0.05, -0.35, -0.95, -1.15, -0.95, -1.0, 0.1), (0, -0.1), 18, behind=True),
        Piece("forewing", _blob(0, 0.05, 0.35, -0.95, 1.15, -0.95, 1.0, 0.1), (0, -0.1), 18, behind=True),
        Piece("hindwing", _blob(0, 0, -0.9, 0.05, -0.8, 0.9, -0.2, 0.95), (0, 0.1), 14, behind=True),
        Piece("hindwing", _blob(0, 0, 0.9, 0.05, 0.8, 0.9, 0.2, 0.95), (0, 0.1), 14, behind=True),
    ),
    "sailboat": (
        Piece("hull", _poly(-1.0, 0.42, 1.05, 0.42, 0.62, 0.95, -0.62, 0.95)),
        Piece("mast", _poly(-0.08, -1.15, 0.08, -1.15, 0.08, 0.5, -0.08, 0.5), (0, 0.5), 8, behind=True),
        Piece("sail", _blob(0.04, -1.35, 0.3, -0.7, 1.15, 0.42, 0.04, 0.38, 0.04, -0.5), (0.06, -0.9), 8, 1),
        Piece("jib", _poly(-0.1, -0.85, -0.9, 0.3, -0.1, 0.3), (-0.1, -0.8), 8, 1),
    ),
    "key": (
        Piece("shaft", _poly(-0.35, -0.13, 1.15, -0.13, 1.15, 0.13, -0.35, 0.13)),
        Piece("bow", _ring(-0.68, 0, 0.52, 0.2, 0, 360), (-0.3, 0), 16),
        Piece("bit", _poly(0.42, 0.1, 0.7, 0.1, 0.7, 0.6, 0.42, 0.6), (0.56, 0.1), 10, behind=True),
        Piece("bit", _poly(0.84, 0.1, 1.12, 0.1, 1.12, 0.5, 0.84, 0.5), (1, 0.1), 10, behind=True),
    ),
    "lamp": (
        Piece("pole", _poly(-0.09, -0.5, 0.09, -0.5, 0.09, 0.85, -0.09, 0.85)),
        Piece("shade", _poly(-0.3, -1.1, 0.3, -1.1, 0.75, -0.3, -0.75, -0.3), (0, -0.35), 22),
        Piece("bulb", _oval(0, -0.25, 0.25, 0.25), (0, -0.3), 0, 1, behind=True),
        Piece("base", _blob(-0.7, 1.05, -0.45, 0.7, 0.45, 0.7, 0.7, 1.05), (0, 0.85), 8),
    ),
    "mushroom": (
        Piece("cap", _blob(-1.05, 0.15, -0.95, -0.7, 0, -1.1, 0.95, -0.7, 1.05, 0.15)),
        Piece("stem", _blob(-0.25, -0.3, 0.25, -0.3, 0.25, 0.6, 0.45, 1.1, -0.45, 1.1), (0, 0.1), 14, behind=True),
        Piece("spot", _oval(-0.42, -0.3, 0.2, 0.16), (0, -0.4), 20, inside=True),
        Piece("spot", _oval(0.35, -0.4, 0.2, 0.16), (0, -0.4), 20, inside=True),
    ),
}  # fmt: skip


def part_names(object_name: str) -> list[str]:
    """Part names of an object, in the order of their category ids."""
    return list(dict.fromkeys(piece.part for piece in OBJECTS[object_name]))


def own_hue(object_name: str, part: str) -> float:
    """Characteristic hue of a part, in [0, 1); the parts of an object are evenly apart."""
    names = part_names(object_name)
    # 5/12 of the circle visits twelve distinct hues and keeps neighbours in the table far apart
    return (list(OBJECTS).index(object_name) * 5 / 12 + names.index(part) / len(names)) % 1.0
