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

Rng = np.random.Generator
Split = Literal["train", "val"]

VERSION = 1  # raise it when the same arguments draw other pixels
MIN_VISIBLE = 12  # pixels; less of a part is not annotated
MISSING = 0.15  # chance that a part other than the first is absent
OWN_HUE = {"train": 0.9, "val": 0.5}  # chance of a part's own hue and texture
OWN_BACKGROUND = {"train": 0.8, "val": 0.0}  # chance of the object's own background
TEXTURES = ("stripes", "checks", "dots", "waves")


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


def _annotation(mask: np.ndarray, form: int) -> dict[str, Any]:
    """`mask` in the COCO format, as polygon (form 0), uncompressed (1) or compressed RLE (2)."""
    height, width = mask.shape
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    segmentation: Any = {"size": [height, width], "counts": rle["counts"].decode()}
    if form == 1:
        changes = np.flatnonzero(
            np.diff(mask.ravel(order="F"), prepend=False, append=not mask[-1, -1])
        )
        segmentation["counts"] = np.diff(changes, prepend=0).tolist()
    if form == 0:
        rows = np.flatnonzero(mask.any(axis=1))
        left, right = mask[rows].argmax(axis=1), width - mask[rows, ::-1].argmax(axis=1)
        x = np.concatenate([np.repeat(right, 2), np.repeat(left, 2)[::-1]])
        y = np.stack([rows, rows + 1], axis=1).ravel()
        polygon = np.stack([x, np.concatenate([y, y[::-1]])], axis=1).ravel().tolist()
        # The outline of the rows' extents: exact for convex shapes, refused for all others
        if coco_mask.frPyObjects([polygon], height, width)[0]["counts"] == rle["counts"]:
            segmentation = [polygon]
    bbox = coco_mask.toBbox(rle).tolist()
    return {"segmentation": segmentation, "area": int(coco_mask.area(rle)), "bbox": bbox}


class _AnnotationFile:
    """Collects one object's `json/<object>.json`; ids start at 1 in every file."""

    def __init__(self, object_name: str) -> None:
        self.ids = {part: i for i, part in enumerate(part_names(object_name), start=1)}
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(
        self, file_name: str, instances: list[tuple[str, np.ndarray]], size: int, rng: Rng
    ) -> None:
        image = {"id": len(self.images) + 1, "width": size, "height": size, "file_name": file_name}
        self.images.append(image)
        for part, mask in instances:
            ids = {"id": len(self.annotations) + 1, "image_id": image["id"]}
            ids["category_id"] = self.ids[part]
            annotation = _annotation(mask, int(rng.integers(3)))
            self.annotations.append(ids | annotation | {"iscrowd": 0})

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        categories = [{"id": i, "name": part} for part, i in self.ids.items()]
        content = {"images": self.images, "annotations": self.annotations, "categories": categories}
        path.write_text(json.dumps(content))


def _render_object(root: Path, name: str, arguments: dict[str, int]) -> None:
    train, annotated = arguments["train_per_object"], arguments["annotated_per_object"]
    size, seed = arguments["size"], arguments["seed"]
    files = {folder: _AnnotationFile(name) for folder in ("pinpp", "truth", "val_parts")}
    counts: dict[Split, int] = {"train": train, "val": arguments["val_per_object"]}
    for number, (split, count) in enumerate(counts.items()):
        folder = root / "imagenet" / split / name
        folder.mkdir(parents=True)
        for n in range(count):
            rng = np.random.default_rng([seed, number, zlib.crc32(name.encode()), n])
            image, instances = draw_example(name, split, size, rng)
            # As in ImageNet, no file name occurs in both splits
            file_name = f"{name}_{n if split == 'train' else train + n}.jpg"
            Image.fromarray(image).save(folder / file_name, quality=92)
            kind = "val_parts" if split == "val" else "pinpp" if n < annotated else "truth"
            files[kind].add(f"{name}/{file_name}", instances, size, rng)
    for kind, file in files.items():
        file.save(root / kind / "json" / f"{name}.json")
    pieces = OBJECTS[name]
    relations = {f"{p.part}:{pieces[p.parent].part}": None for p in pieces if p.inside}
    if relations:
        including = root / "pinpp" / "including"
        including.mkdir(exist_ok=True)
        (including / f"{name}.txt").write_text("\n".join(relations) + "\n")


def _is_complete(root: Path, arguments: dict[str, int]) -> bool:
    """Whether `root` holds this very set; ValueError if it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    marker = root / "part_shapes.json"
    if not marker.is_file():
        raise ValueError(f"{root} is not a PartShapes folder: give another folder or remove it")
    found = json.loads(marker.read_text())
    if found != arguments:
        keys = [key for key in arguments if found.get(key) != arguments[key]]
        changes = ", ".join(f"{key} {found.get(key)} instead of {arguments[key]}" for key in keys)
        raise ValueError(f"{root} was rendered with {changes}: remove it or give another folder")
    return True


def render_part_shapes(
    root: Path,
    *,
    num_objects: int = 10,
    train_per_object: int = 150,
    annotated_per_object: int = 50,
    val_per_object: int = 60,
    size: int = 128,
    seed: int = 0,
) -> Path:
    """Render the set below `root` unless it is there; the folder appears only when complete.

    Writes `imagenet/{train,val}`, `pinpp/{json,including}` (the first `annotated_per_object` train
    images of each object), `truth/json` (the other train images), `val_parts/json` and the
    arguments in `part_shapes.json`. An image depends on `size`, `seed`, its split, object and
    number only; `size` is the side in pixels.

    Returns:
        `root`.

    Raises:
        ValueError: an argument is out of range, or `root` holds something else.
    """
    arguments = {
        "version": VERSION,
        "num_objects": num_objects,
        "train_per_object": train_per_object,
        "annotated_per_object": annotated_per_object,
        "val_per_object": val_per_object,
        "size": size,
        "seed": seed,
    }
    if not 1 <= num_objects <= len(OBJECTS):
        raise ValueError(f"num_objects is {num_objects}: give 1 to {len(OBJECTS)}")
    if not 0 <= annotated_per_object <= train_per_object:
        raise ValueError(
            f"annotated_per_object is {annotated_per_object}: give 0 to {train_per_object}, "
            "the value of train_per_object"
        )
    if size < 32:
        raise ValueError(f"size is {size}: give at least 32 pixels")
    root = Path(root).absolute()
    if _is_complete(root, arguments):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as scratch:
        staged = Path(scratch) / root.name
        for name in track(list(OBJECTS)[:num_objects], "Rendering PartShapes", transient=True):
            _render_object(staged, name, arguments)
        (staged / "part_shapes.json").write_text(json.dumps(arguments, indent=2) + "\n")
        try:
            staged.rename(root)
        except OSError:  # another process was faster
            if not _is_complete(root, arguments):
                raise
    return root


def main(args: Sequence[str] | None = None) -> None:
    """Command line: `python -m datamodules.part_shapes ROOT [--size 128 ...]`."""
    parser = argparse.ArgumentParser(prog="datamodules.part_shapes", description=__doc__)
    parser.add_argument("root", type=Path)
    for name, default in (render_part_shapes.__kwdefaults__ or {}).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    print(render_part_shapes(**vars(parser.parse_args(args))))


if __name__ == "__main__":
    main()
