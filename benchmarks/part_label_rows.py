"""Rows of part labels for benchmarks: as many as wanted, made of a few real or rendered ones."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.masks.part_labels import ImageParts, decode_masks, encode_mask
from datamodules.masks.segmentations import run_lengths
from datamodules.part_shapes.part_shapes import render_part_shapes

PHOTOGRAPHS = Path(__file__).parent.parent.parent / "shared" / "data" / "parts_mini"
SHARD = 1000  # rows of a Parquet file


def base_rows(folder: Path) -> tuple[list[ImageParts], PartVocabulary, str]:
    """Annotated images to make rows from, their vocabulary, and what they are."""
    root, source = PHOTOGRAPHS, "real photographs (parts_mini)"
    if not root.is_dir():
        root, source = render_part_shapes(folder / "shapes", size=320), "PartShapes, 320 px"
    vocabulary = PartVocabulary.from_pinpp(root / "pinpp", root / "imagenet")
    rows = [
        row
        for name in ("pinpp", "val_parts")
        for row in read_annotations(root / name, vocabulary)
        if row.instances
    ]
    return rows, vocabulary, source


def enlarged(row: ImageParts, long_side: int) -> ImageParts:
    """A row scaled to the long side by nearest neighbour."""
    scale = long_side / max(row.height, row.width)
    height, width = round(row.height * scale), round(row.width * scale)
    y, x = np.arange(height) * row.height // height, np.arange(width) * row.width // width
    masks = decode_masks(row)[:, y[:, None], x]
    instances = [
        replace(part, rle=encode_mask(mask))
        for part, mask in zip(row.instances, masks, strict=True)
    ]
    return replace(row, height=height, width=width, instances=tuple(instances))


def varied(rows: list[ImageParts], count: int, rng: np.random.Generator) -> Iterator[ImageParts]:
    """`count` rows: turned by half a turn or not, moved right and down by up to 16 pixels.

    Both are done on COCO's run lengths, which follow the columns: turned, they are in reverse, and
    moved, they begin later and lose their end.
    """
    runs = [[run_lengths(part.rle) for part in row.instances] for row in rows]
    for number in range(count):
        row = rows[number % len(rows)]
        turn = rng.random() < 0.5
        size = [row.height, row.width]
        pixels = row.height * row.width
        shift = int(rng.integers(0, 17) * row.height + rng.integers(0, 17))
        moved = []
        for lengths in runs[number % len(rows)]:
            ordered = lengths
            if turn:  # background first, even if there is none
                ordered = lengths[::-1] if len(lengths) % 2 else np.append(0, lengths[::-1])
            ends = np.minimum(np.cumsum(ordered) + shift, pixels)
            ends[-1] = pixels
            moved.append({"size": size, "counts": np.diff(ends, prepend=0).tolist()})
        coded = coco_mask.frPyObjects(moved, *size)
        instances = tuple(
            replace(part, rle=rle["counts"])
            for part, rle, area in zip(row.instances, coded, coco_mask.area(coded), strict=True)
            if area
        )
        key = f"object{number // SHARD:05d}/{number:07d}.JPEG"
        yield replace(row, key=key, instances=instances)
