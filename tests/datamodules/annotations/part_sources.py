"""Tiny folders as Pascal-Part and Cityscapes Panoptic Parts are released, and what is in them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

Mask = np.ndarray
PASCAL_PARTS = {"dog": ["head", "lfleg", "torso"], "car": ["wheel_1", "wheel_2", "frontside"]}
SIDS = {"person": (24, 4), "car": (26, 5)}


@dataclass
class Truth:
    """An object as it was drawn, masks `(H, W)` of the whole image."""

    name: str
    mask: Mask
    parts: list[tuple[str, Mask]] = field(default_factory=list)


def structs(entries: list[dict[str, Any]]) -> np.ndarray:
    """A struct array 1xN as MATLAB keeps it, or its empty matrix."""
    if not entries:
        return np.zeros((0, 0))
    array = np.empty((1, len(entries)), [(key, object) for key in entries[0]])
    for number, entry in enumerate(entries):
        for key, value in entry.items():
            array[0, number][key] = value
    return array


def write_mat(path: Path, name: str, objects: list[Truth]) -> None:
    entries = [
        {
            "class": one.name,
            "class_ind": 1,
            "mask": one.mask.astype(np.uint8),
            "parts": structs(
                [{"part_name": part, "mask": mask.astype(np.uint8)} for part, mask in one.parts]
            ),
        }
        for one in objects
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"anno": {"imname": name, "objects": structs(entries)}}, do_compression=True)


def rectangle(shape: tuple[int, int], top: int, left: int, height: int, width: int) -> Mask:
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def draw_object(
    rng: np.random.Generator, name: str, shape: tuple[int, int], corner: tuple[int, int], size: int
) -> Truth:
    """A ragged object in a square of `size` pixels, its parts one below the other."""
    whole = rectangle(shape, *corner, size, size) & (rng.random(shape) < 0.9)
    third = size // 3
    parts = [
        (part, whole & rectangle(shape, corner[0] + i * third, corner[1], third, size))
        for i, part in enumerate(PASCAL_PARTS[name])
    ]
    return Truth(name, whole, parts)


def pascal_source(root: Path, train: int = 8, val: int = 4) -> dict[str, list[Truth]]:
    """Images of 60x80 with a large and a small object, dog and car in turns."""
    rng = np.random.default_rng(0)
    truth = {}
    (root / "JPEGImages").mkdir(parents=True)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    names = [f"2008_{number:06}" for number in range(train + val)]
    for number, name in enumerate(names):
        large, small = ("dog", "car") if number % 2 else ("car", "dog")
        shape = (60, 80)
        objects = [
            draw_object(rng, small, shape, (int(rng.integers(0, 45)), 0), 12),
            draw_object(rng, large, shape, (int(rng.integers(0, 20)), 30), 36),
        ]
        pixels = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg")
        write_mat(root / "Annotations_Part" / f"{name}.mat", name, objects)
        truth[name] = objects
    lists = root / "ImageSets" / "Main"
    (lists / "train.txt").write_text("\n".join(names[:train]) + "\n")
    (lists / "val.txt").write_text("\n".join(names[train:]) + "\n")
    return truth


def panoptic_source(root: Path, train: int = 6, val: int = 2) -> dict[str, np.ndarray]:
    """Street scenes of 64x96, a person and a car each; the ids of every image, int32."""
    rng = np.random.default_rng(1)
    found = {}
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            name = f"aachen_{number:06}_{split}"
            ids = np.full((64, 96), 7, np.int32)  # road
            ids[:8] = 33  # a crowd of bicycles
            for slot, (sid, parts) in enumerate(SIDS.values()):
                top, left = int(rng.integers(10, 24)), 4 + 46 * slot
                where = rectangle(ids.shape, top, left, 40, 40) & (rng.random(ids.shape) < 0.9)
                part = rng.integers(0, parts + 1, ids.shape)
                instance = sid * 1000 + number
                # pixels without a part are written in the short or in the long form
                short = (part == 0) & (rng.random(ids.shape) < 0.5)
                value = np.where(short, instance, instance * 100 + part)
                ids = np.where(where, value, ids).astype(np.int32)
            for folder in ("leftImg8bit", "gtFinePanopticParts"):
                (root / folder / split / "aachen").mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
            image = root / "leftImg8bit" / split / "aachen" / f"{name}_leftImg8bit.png"
            Image.fromarray(pixels).save(image)
            write_ids(tiff_of(root, split, name), ids)
            found[f"{split}/{name}"] = ids
    return found


def tiff_of(root: Path, split: str, name: str) -> Path:
    return root / "gtFinePanopticParts" / split / "aachen" / f"{name}_gtFinePanopticParts.tif"


def write_ids(path: Path, ids: np.ndarray) -> None:
    Image.fromarray(ids).save(path, compression="tiff_lzw")
