"""The figures of PartShapes: objects as outlines of named parts."""

from typing import NamedTuple

import numpy as np


class Piece(NamedTuple):
    """One outline of an object; pieces of the same part are separate instances.

    Coordinates are the object's own: x right, y down, about -100 to 100. The first piece carries
    the others; `parent` is the index of the piece that this one turns with, `swing` the largest
    turn about `pivot` in degrees. `behind`: drawn before the first piece. `inside`: clipped to the
    parent and included in it (PIN++'s inclusion relation).
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
    return np.concatenate([circle * outer, circle[::-1] * inner]) + np.array([x, y])


OBJECTS: dict[str, tuple[Piece, ...]] = {
    "fish": (
        Piece("body", _blob(-95, 0, -50, -52, 30, -48, 85, 0, 30, 48, -50, 52)),
        Piece("tail", _poly(50, 0, 120, -55, 100, 0, 120, 55), (55, 0), 28, behind=True),
        Piece("fin", _poly(-40, -30, 5, -90, 40, -25), (0, -30), 22, behind=True),
        Piece("eye", _oval(-48, -8, 15, 15), inside=True),
    ),
    "car": (
        Piece("body", _poly(-105, 32, -105, -2, -90, -12, 90, -12, 110, 5, 110, 32)),
        Piece("cabin", _poly(-70, 0, -42, -62, 38, -62, 70, 0), swing=7, behind=True),
        Piece("window", _poly(-42, -14, -26, -48, 24, -48, 42, -14), parent=1, inside=True),
        Piece("wheel", _oval(-58, 34, 28, 28), (-50, 10), 8),
        Piece("wheel", _oval(58, 34, 28, 28), (50, 10), 8),
    ),
    "tree": (
        Piece("crown", _oval(0, -35, 78, 68, lobes=7)),
        Piece("trunk", _poly(-15, 0, 15, 0, 26, 105, -26, 105), (0, 20), 14, behind=True),
        Piece("fruit", _oval(-34, -42, 16, 16), (0, -30), 40, inside=True),
        Piece("fruit", _oval(32, -12, 16, 16), (0, -30), 40, inside=True),
    ),
    "rocket": (
        Piece("hull", _poly(0, -115, 22, -85, 36, -40, 36, 60, -36, 60, -36, -40, -22, -85)),
        Piece("fin", _poly(-30, 5, -85, 80, -30, 60), (-30, 40), 14, behind=True),
        Piece("fin", _poly(30, 5, 85, 80, 30, 60), (30, 40), 14, behind=True),
        Piece(
            "flame",
            _poly(-28, 50, -34, 99, -12, 82, 0, 130, 12, 82, 34, 99, 28, 50),
            (0, 55),
            16,
            0,
            True,
        ),
        Piece("window", _oval(0, -22, 19, 19), inside=True),
    ),
    "bird": (
        Piece("body", _oval(0, 12, 62, 42)),
        Piece("tail", _poly(35, 0, 115, -20, 105, 10, 115, 40, 40, 32), (45, 15), 24, behind=True),
        Piece("head", _oval(-58, -38, 32, 32), (-35, -5), 22),
        Piece("beak", _poly(-78, -58, -130, -36, -78, -20), (-75, -40), 12, 2, behind=True),
        Piece("wing", _blob(-30, 20, -5, -75, 45, -105, 75, -75, 40, 30), (0, 15), 30),
    ),
    "chair": (
        Piece("seat", _poly(-55, 0, 50, 0, 72, 36, -70, 36)),
        Piece("back", _poly(-60, -110, 50, -110, 50, 5, -55, 5), (0, 5), 13, behind=True),
        Piece("leg", _poly(-68, 25, -40, 25, -48, 110, -72, 110), (-55, 30), 14, behind=True),
        Piece("leg", _poly(42, 25, 70, 25, 74, 110, 50, 110), (55, 30), 14, behind=True),
    ),
    "mug": (
        Piece("body", _poly(-65, -60, 50, -60, 40, 80, -55, 80)),
        Piece("handle", _ring(45, 5, 52, 27, -95, 95), (45, 5), 16, behind=True),
        Piece("rim", _oval(-8, -62, 62, 19), (0, -60), 5),
        Piece("label", _poly(-38, 0, 20, 0, 17, 45, -33, 45), (-8, 20), 14, inside=True),
    ),
    "butterfly": (
        Piece("body", _oval(0, 0, 14, 72)),
        Piece("forewing", _blob(0, 5, -35, -95, -115, -95, -100, 10), (0, -10), 18, behind=True),
        Piece("forewing", _blob(0, 5, 35, -95, 115, -95, 100, 10), (0, -10), 18, behind=True),
        Piece("hindwing", _blob(0, 0, -90, 5, -80, 90, -20, 95), (0, 10), 14, behind=True),
        Piece("hindwing", _blob(0, 0, 90, 5, 80, 90, 20, 95), (0, 10), 14, behind=True),
    ),
    "sailboat": (
        Piece("hull", _poly(-100, 42, 105, 42, 62, 95, -62, 95)),
        Piece("mast", _poly(-8, -115, 8, -115, 8, 50, -8, 50), (0, 50), 8, behind=True),
        Piece("sail", _blob(4, -135, 30, -70, 115, 42, 4, 38, 4, -50), (0, 50), 8),
        Piece("jib", _poly(-10, -85, -90, 30, -10, 30), (0, 50), 8),
    ),
    "key": (
        Piece("shaft", _poly(-35, -13, 115, -13, 115, 13, -35, 13)),
        Piece("bow", _ring(-68, 0, 52, 20, 0, 360), (-30, 0), 16),
        Piece("bit", _poly(42, 10, 70, 10, 70, 60, 42, 60), (56, 10), 10, behind=True),
        Piece("bit", _poly(84, 10, 112, 10, 112, 50, 84, 50), (100, 10), 10, behind=True),
    ),
}


def part_names(object_name: str) -> list[str]:
    """Part names of an object, in the order of their category ids."""
    return list(dict.fromkeys(piece.part for piece in OBJECTS[object_name]))


def own_hue(object_name: str, part: str) -> float:
    """Characteristic hue of a part, in [0, 1); the parts of an object are evenly apart."""
    names = part_names(object_name)
    return (list(OBJECTS).index(object_name) * 0.3 + names.index(part) / len(names)) % 1.0
