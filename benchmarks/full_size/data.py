"""A synthetic ImageNet with PartImageNet++ annotations, and a synthetic COCO, of full extent.

A few pictures of photographs' size are linked under as many names as wanted. There are all
categories and parts, the density of masks and the included parts that the release has; there are
fewer images.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask
from timm.data import ImageNetInfo

from benchmarks.importers import parts_of, pixels
from datamodules.annotations.part_imagenet import PartImage, PartMask
from datamodules.annotations.pinpp_writer import write_pinpp
from datamodules.files.errors import UserError

CATEGORIES, PARTS = 1000, 3308  # table 1 of the paper
MASKS_PER_IMAGE = 4.06  # 406,364 masks on 100,000 images
INCLUDING = (201, 317)  # categories with included parts, and such parts
MOST_PARTS = 9  # of a category
PICTURES = 16  # distinct ones; a file takes about 65,000 hard links
SIZE, COCO_SIZE = (375, 500), (480, 640)  # height and width in pixels
COCO_CATEGORIES, COCO_BOXES = 80, 7
COCO_IMAGES = {"train2017": 8, "val2017": 2}


def part_counts(categories: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """How many parts each category has: `(categories,)`, from 1 to `MOST_PARTS`.

    Raises:
        UserError: if so many parts do not fit.
    """
    if not categories <= parts <= MOST_PARTS * categories:
        raise UserError(
            f"{parts} parts of {categories} categories: give {categories} to "
            f"{MOST_PARTS * categories}"
        )
    counts = np.ones(categories, int)
    for _ in range(parts - categories):
        counts[rng.choice(np.flatnonzero(counts < MOST_PARTS))] += 1
    return counts


def annotated(
    names: list[str], counts: np.ndarray, images: int, rng: np.random.Generator
) -> Iterator[PartImage]:
    """The annotated images: all parts of the category, and of some parts a second mask."""
    ready: dict[int, list[list[PartMask]]] = {}
    repeat = max(0.0, MASKS_PER_IMAGE - float(counts.mean()))
    for name, count in zip(names, counts.tolist(), strict=True):
        if count not in ready:
            ready[count] = [_masks(rng, count) for _ in range(PICTURES)]
        for number in range(images):
            masks = ready[count][number % PICTURES]
            if rng.random() >= repeat:
                masks = masks[:-1]
            yield PartImage(name, f"{name}_{number}.JPEG", *SIZE, tuple(masks), Path())


def _masks(rng: np.random.Generator, count: int) -> list[PartMask]:
    """Masks of each part and a second one of the first, in one object of an image."""
    _, masks = parts_of(rng, SIZE, count + 1)
    coded = coco_mask.encode(np.asfortranarray(np.stack(masks, -1), np.uint8))
    return [
        PartMask(
            f"part {number % count}",
            "",
            {"size": rle["size"], "counts": rle["counts"].decode()},
            coco_mask.toBbox(rle).tolist(),
            int(coco_mask.area(rle)),
        )
        for number, rle in enumerate(coded)
    ]


def _link_images(folder: Path, pictures: list[Path], names: list[str], images: int) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(images):
            source = pictures[number % len(pictures)]
            os.link(source, folder / name / f"{name}_{number}.JPEG")


def _write_relations(folder: Path, names: list[str], counts: np.ndarray) -> None:
    """Lines `part:whole` for as many categories as the release has, some of them with two."""
    categories, relations = INCLUDING
    chosen = [pair for pair in zip(names, counts.tolist(), strict=True) if pair[1] > 2][:categories]
    for place, (name, _) in enumerate(chosen):
        lines = ["part 1:part 0\n", "part 2:part 0\n"][: 1 + (place < relations - categories)]
        (folder / f"{name}.txt").write_text("".join(lines))


def _write_coco(root: Path, rng: np.random.Generator) -> None:
    """Images with boxes of 80 categories in COCO's layout."""
    (root / "annotations").mkdir(parents=True)
    for split, count in COCO_IMAGES.items():
        (root / split).mkdir()
        images, annotations = [], []
        for number in range(1, count + 1):
            pixels(rng, COCO_SIZE).save(root / split / f"{number:012d}.jpg")
            file = {"id": number, "file_name": f"{number:012d}.jpg"}
            images.append(file | {"height": COCO_SIZE[0], "width": COCO_SIZE[1]})
            for _ in range(COCO_BOXES):
                x, y = (float(rng.integers(0, side // 2)) for side in COCO_SIZE[::-1])
                box = [x, y, *rng.integers(30, 200, 2).astype(float).tolist()]
                about = {"id": len(annotations) + 1, "image_id": number, "bbox": box}
                category = int(rng.integers(1, COCO_CATEGORIES + 1))
                annotations.append(about | {"category_id": category, "iscrowd": 0})
        content = {"images": images, "annotations": annotations}
        content["categories"] = [
            {"id": number, "name": f"thing {number}"} for number in range(1, COCO_CATEGORIES + 1)
        ]
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def make_data(
    root: Path, *, categories: int = CATEGORIES, parts: int = PARTS, images: int = 10, seed: int = 0
) -> None:
    """Writes `root/imagenet/{train,val}`, `root/pinpp`, `root/split.json` and `root/coco`.

    All train images are annotated, and one of them is held out by the split. val has one image a
    category.

    Args:
        root: folder to make; one that is there, whole, is left as it is.
        categories: object categories, the first of ImageNet-1K's.
        parts: of all categories.
        images: train images of each category, at least 2.
        seed: of everything drawn.

    Raises:
        UserError: if the folder was made otherwise, or so many parts do not fit.
    """
    made = {"categories": categories, "parts": parts, "images": images, "seed": seed}
    record = root / "made.json"
    if record.is_file():
        if (known := json.loads(record.read_text())) != made:
            raise UserError(f"{root} was made with {known}, not {made}: give another --out")
        return
    if root.exists():
        raise UserError(f"{root} is not whole: delete it")
    rng = np.random.default_rng(seed)
    counts = part_counts(categories, parts, rng)
    names = sorted(ImageNetInfo("imagenet-1k").label_names())[:categories]
    (root / "pictures").mkdir(parents=True)
    pictures = [root / "pictures" / f"{number}.jpg" for number in range(PICTURES)]
    for picture in pictures:
        pixels(rng, SIZE).save(picture)
    _link_images(root / "imagenet" / "train", pictures, names, images)
    _link_images(root / "imagenet" / "val", pictures, names, 1)
    write_pinpp(annotated(names, counts, images, rng), root / "pinpp")
    _write_relations(root / "pinpp" / "including", names, counts)
    keys = [f"{name}/{name}_{number}.JPEG" for name in names for number in range(images)]
    (root / "split.json").write_text(json.dumps({"train": keys[1:], "val": keys[:1]}))
    _write_coco(root / "coco", rng)
    record.write_text(json.dumps(made))
