"""PartShapes: a small rendered data set in the layout of ImageNet and PartImageNet++.

Objects are articulated figures of named parts. Hue and texture tell the part, and the background
tells the object, far more often in train than in val, so that shape is what generalises.
"""

import json
import tempfile
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from datamodules.files.errors import UserError
from datamodules.files.process_map import work_through
from datamodules.part_shapes.drawing import Rng, Split, draw_example
from datamodules.part_shapes.objects import OBJECTS, part_names

VERSION = 1  # raise it when the same arguments draw other pixels


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


def _render_object(name: str, root: Path, arguments: dict[str, int]) -> None:
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
        raise UserError(f"{root} is not a PartShapes folder: give another folder or remove it")
    found = json.loads(marker.read_text())
    if found != arguments:
        keys = [key for key in arguments if found.get(key) != arguments[key]]
        changes = ", ".join(f"{key} {found.get(key)} instead of {arguments[key]}" for key in keys)
        raise UserError(f"{root} was rendered with {changes}: remove it or give another folder")
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
    workers: int = 1,
) -> Path:
    """Renders PartShapes below `root` unless it is there; the folder appears only when complete.

    Writes `imagenet/{train,val}`, `pinpp/{json,including}` (the first `annotated_per_object` train
    images of each object), `truth/json` (the other train images), `val_parts/json` and the
    arguments in `part_shapes.json`. An image depends on `size`, `seed`, its split, object and
    number only.

    Args:
        root: missing or empty folder, or one with this very set.
        num_objects: object categories.
        train_per_object: train images of each.
        annotated_per_object: train images of each with annotations in `pinpp/`.
        val_per_object: val images of each.
        size: side of an image in pixels, at least 32.
        seed: of all random draws.
        workers: processes that draw, which changes no pixel.

    Returns:
        `root`.

    Raises:
        UserError: an argument is out of range, or `root` holds something else.
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
        raise UserError(f"num_objects is {num_objects}: give 1 to {len(OBJECTS)}")
    if not 0 <= annotated_per_object <= train_per_object:
        raise UserError(
            f"annotated_per_object is {annotated_per_object}: give 0 to {train_per_object}, "
            "the value of train_per_object"
        )
    if size < 32:
        raise UserError(f"size is {size}: give at least 32 pixels")
    root = Path(root).absolute()
    if _is_complete(root, arguments):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as scratch:
        staged = Path(scratch) / root.name
        render = partial(_render_object, root=staged, arguments=arguments)
        names = list(OBJECTS)[:num_objects]
        for _ in work_through(render, names, workers, "rendering PartShapes"):
            pass
        (staged / "part_shapes.json").write_text(json.dumps(arguments, indent=2) + "\n")
        try:
            staged.rename(root)
        except OSError:  # another process was faster
            if not _is_complete(root, arguments):
                raise
    return root
