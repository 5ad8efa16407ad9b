"""Writer of part annotations in the layout released with PartImageNet++."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from datamodules.annotations.part_imagenet import PartImage


def write_pinpp(images: Iterable[PartImage], out: Path) -> None:
    """Writes `out/json/<object>.json` and an empty `out/including/`.

    An object has the parts that its images show. Ids start at 1 in every file.

    Args:
        images: annotated images.
        out: folder without `json/`.

    Raises:
        FileExistsError: if `out/json` exists.
    """
    (out / "json").mkdir(parents=True)
    (out / "including").mkdir()
    by_object = defaultdict(list)
    for image in images:
        by_object[image.object_name].append(image)
    for name, members in sorted(by_object.items()):
        (out / "json" / f"{name}.json").write_text(json.dumps(_file_content(members)))


def _file_content(images: Sequence[PartImage]) -> dict[str, list[dict[str, Any]]]:
    parts = sorted({mask.part for image in images for mask in image.masks})
    content: dict[str, list[dict[str, Any]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": part} for i, part in enumerate(parts, start=1)],
    }
    for number, image in enumerate(images, start=1):
        content["images"].append(
            {
                "id": number,
                "width": image.width,
                "height": image.height,
                "file_name": f"{image.object_name}/{image.file}",
            }
        )
        for mask in image.masks:
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": parts.index(mask.part) + 1,
                    "segmentation": mask.segmentation,
                    "area": mask.area,
                    "bbox": mask.box,
                    "iscrowd": 0,
                }
            )
    return content
