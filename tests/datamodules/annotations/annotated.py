"""A tiny data set in the PartImageNet++ layout, for tests that damage it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datamodules.masks.part_labels import encode_mask

SIZES = {1: (6, 8), 2: (8, 6), 3: (5, 7)}  # height, width by image id
POLYGON = [[2.0, 1.0, 5.0, 1.0, 5.0, 4.0, 2.0, 4.0]]


def square(height: int, width: int) -> np.ndarray:
    """Mask of rows 1 to 3, columns 2 to 4."""
    mask = np.zeros((height, width), np.uint8)
    mask[1:4, 2:5] = 1
    return mask


def runs(mask: np.ndarray) -> list[int]:
    """Uncompressed run lengths, computed independently of the project."""
    flat = mask.flatten(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *changes, flat.size]).tolist()
    return lengths if flat[0] == 0 else [0, *lengths]


def cat_content() -> dict[str, Any]:
    """One image of each size; masks as compressed run lengths, plain ones and polygon."""
    masks = {key: square(*size) for key, size in SIZES.items()}
    segmentations = [
        (1, 1, {"size": [6, 8], "counts": encode_mask(masks[1]).decode()}),
        (2, 2, {"size": [8, 6], "counts": runs(masks[2])}),
        (3, 1, [list(polygon) for polygon in POLYGON]),
        (3, 2, {"size": [5, 7], "counts": encode_mask(masks[3]).decode()}),
    ]
    return {
        "info": "tiny",
        "images": [
            {"id": key, "height": h, "width": w, "file_name": f"cat/{key}.jpg"}
            for key, (h, w) in SIZES.items()
        ],
        "categories": [{"id": 1, "name": "head"}, {"id": 2, "name": "tail"}],
        "annotations": [
            {
                "id": 10 + index,
                "image_id": image,
                "category_id": category,
                "segmentation": segmentation,
                "bbox": [2.0, 1.0, 3.0, 3.0],
            }
            for index, (image, category, segmentation) in enumerate(segmentations)
        ],
    }


def write(root: Path, content: Any, name: str = "cat") -> Path:
    """Writes an annotation file."""
    file = root / "pinpp" / "json" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def make_set(root: Path) -> Path:
    """Writes images, annotations and relations of `cat`, and of `flatworm`, one whole part."""
    for name, sizes in (("cat", SIZES), ("flatworm", {1: (6, 8)})):
        folder = root / "imagenet" / "train" / name
        folder.mkdir(parents=True)
        for key, (height, width) in sizes.items():
            Image.new("RGB", (width, height)).save(folder / f"{key}.jpg")
    write(root, cat_content())
    whole = {"id": 5, "image_id": 1, "category_id": 7, "segmentation": POLYGON}
    write(
        root,
        {
            "images": [{"id": 1, "height": 6, "width": 8, "file_name": "flatworm/1.jpg"}],
            "categories": [{"id": 7, "name": "flatworm"}],
            "annotations": [whole],
        },
        "flatworm",
    )
    (root / "pinpp" / "including").mkdir()
    (root / "pinpp" / "including" / "cat.txt").write_text("tail:head\n\n")
    return root
