"""A tiny data set in the layout of COCO, from the part boxes of PartShapes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CATEGORIES = {3: "red", 7: "green", 11: "blue"}  # ids with gaps, as COCO's


def write_coco(root: Path, shapes: Path, images: int = 4) -> Path:
    """Writes `images` images of each object and split, and one without boxes in each split."""
    for split, annotations in (("train", "pinpp"), ("val", "val_parts")):
        content: dict[str, Any] = {"images": [], "annotations": []}
        folder = root / f"{split}2017"
        folder.mkdir(parents=True)
        for file in sorted((shapes / annotations / "json").glob("*.json")):
            source = json.loads(file.read_text())
            for image in source["images"][:images]:
                name = Path(image["file_name"]).name
                shutil.copy(shapes / "imagenet" / split / image["file_name"], folder / name)
                number = len(content["images"]) + 1
                content["images"].append(image | {"id": number, "file_name": name})
                content["annotations"] += [
                    {
                        "id": len(content["annotations"]) + i,
                        "image_id": number,
                        "category_id": list(CATEGORIES)[part["category_id"] % 3],
                        "bbox": part["bbox"],
                        "area": part["area"],
                        "iscrowd": 0,
                    }
                    for i, part in enumerate(source["annotations"], start=1)
                    if part["image_id"] == image["id"]
                ]
        Image.fromarray(np.full((48, 64, 3), 128, np.uint8)).save(folder / "empty.jpg")
        content["images"].append(
            {"id": 900, "file_name": f"{folder.name}/empty.jpg", "width": 64, "height": 48}
        )
        content["categories"] = [{"id": i, "name": n} for i, n in CATEGORIES.items()]
        path = root / "annotations" / f"instances_{split}2017.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return root
