"""A small made-up set of annotations and results, in the real formats."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

SIZE = (60, 72)
PARTS = {"ant": ("head", "leg"), "bee": ("head", "wing")}
NAMES = [f"{owner}:{part}" for owner, parts in PARTS.items() for part in parts]  # ids 1 to 4


def rectangle(rng: np.random.Generator) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 within the image."""
    x, y = rng.integers(0, 30, 2)
    return int(x), int(y), int(x + rng.choice([8, 20, 40])), int(y + rng.choice([8, 20, 30]))


def dense(box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = 1
    return mask


def rle(box: tuple[int, int, int, int]) -> dict[str, Any]:
    code = coco_mask.encode(np.asfortranarray(dense(box)))
    return {"size": list(SIZE), "counts": code["counts"].decode()}


def polygon(box: tuple[int, int, int, int]) -> list[list[int]]:
    x1, y1, x2, y2 = box
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


def make_set(root: Path, seed: int = 0) -> list[dict[str, Any]]:
    """Writes `imagenet/train` and `truth`, and gives results.

    A result has `key`, `name` (`object:part`), `box` and `score`; no two scores are equal. Some are
    of another object's parts. The last image of each object has no result, and the third of each
    no mask.
    """
    rng = np.random.default_rng(seed)
    results = []
    for owner, parts in PARTS.items():
        content: dict[str, Any] = {"images": [], "annotations": []}
        content["categories"] = [{"id": i, "name": part} for i, part in enumerate(parts)]
        for number in range(6):
            key = f"{owner}/{owner}_{number}.png"
            file = root / "imagenet/train" / key
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(file)
            image = {"id": number, "file_name": key, "height": SIZE[0], "width": SIZE[1]}
            content["images"].append(image)
            for place in range(0 if number == 2 else 4):
                box = rectangle(rng)
                x1, y1, x2, y2 = box
                entry = {"id": len(content["annotations"]), "image_id": number, "iscrowd": 0}
                entry |= {"category_id": place % 2, "segmentation": polygon(box)}
                entry |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
                content["annotations"].append(entry)
                near = x1 + int(rng.integers(0, 3)), y1, x2 + int(rng.integers(0, 3)), y2
                results.append({"key": key, "name": f"{owner}:{parts[place % 2]}", "box": near})
            for _ in range(4):
                wrong = str(rng.choice(NAMES))
                results.append({"key": key, "name": wrong, "box": rectangle(rng)})
        (root / "truth/json").mkdir(parents=True, exist_ok=True)
        (root / f"truth/json/{owner}.json").write_text(json.dumps(content))
    for result, score in zip(results, rng.permutation(len(results)), strict=True):
        result["score"] = float((score + 1) / (len(results) + 1))
    return [one for one in results if not one["key"].endswith("_5.png")]


def entries(results: list[dict[str, Any]], **changes: Any) -> list[dict[str, Any]]:
    """Results in COCO's format, with names for ids and boxes beside the masks.

    `changes` replace keys; None drops them.
    """
    found = []
    for one in results:
        x1, y1, x2, y2 = one["box"]
        entry = {
            "image_id": one["key"],
            "category_name": one["name"],
            "segmentation": rle(one["box"]),
        }
        entry |= {"bbox": [x1 + 2, y1, x2 - x1, y2 - y1], "score": one["score"]}
        found.append({k: v for k, v in (entry | changes).items() if v is not None})
    return found
