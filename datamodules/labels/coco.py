"""Part labels as COCO JSON, one file per object category: the released layout of PartImageNet++.

Unlike human annotations, these carry a score.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from datamodules.annotations.files import read_json
from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.errors import UserError
from datamodules.masks.part_labels import ImageParts, PartInstance
from datamodules.masks.segmentations import MAX_SIDE, compress


def to_coco(rows: Iterable[ImageParts], label: int, vocabulary: PartVocabulary) -> dict[str, Any]:
    """Content of `json/<object>.json`: ids start at 1, masks are compressed run lengths.

    Args:
        rows: images of one object category; those with an error are left out.
        label: the object category.
        vocabulary: what the part ids mean.

    Raises:
        UserError: if an image has a part of another object, which the layout cannot say.
    """
    parts = vocabulary.parts_of(label)
    local = {part: number for number, part in enumerate(parts, start=1)}
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": local[part], "name": part_name(vocabulary, part)} for part in parts],
    }
    for number, row in enumerate((row for row in rows if not row.error), start=1):
        content["images"].append(
            {"id": number, "width": row.width, "height": row.height, "file_name": row.key}
        )
        size = [row.height, row.width]
        for instance in row.instances:
            if instance.part not in local:
                raise UserError(
                    f"{row.key} has the part {vocabulary.parts[instance.part - 1]} of another "
                    "object, which COCO files per category cannot hold: use labels made with the "
                    "category filter, or the PNG format"
                )
            x1, y1, x2, y2 = instance.box
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": local[instance.part],
                    "segmentation": {"size": size, "counts": instance.rle.decode()},
                    "area": int(coco_mask.area({"size": size, "counts": instance.rle})),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "iscrowd": 0,
                    "score": instance.score,
                }
            )
    return content


def part_name(vocabulary: PartVocabulary, part: int) -> str:
    """Name of a part within its object."""
    return vocabulary.parts[part - 1].rpartition(":")[2]


def relations(vocabulary: PartVocabulary) -> dict[str, str]:
    """Content of `including/<object>.txt`, by object; objects without relations have none."""
    lines: dict[str, str] = {}
    for part, whole in vocabulary.inclusions:
        name = vocabulary.parts[part - 1].rpartition(":")[0]
        line = f"{part_name(vocabulary, part)}:{part_name(vocabulary, whole)}\n"
        lines[name] = lines.get(name, "") + line
    return lines


def from_coco(file: Path, vocabulary: PartVocabulary) -> dict[str, ImageParts]:
    """Reads `json/<object>.json`; parts become global ids by name.

    Segmentations may be polygons, uncompressed or compressed run lengths. Boxes that are not
    there are those of the masks, and a score that is not there is 1.

    Returns:
        One record per image by its key, instances in file order.

    Raises:
        UserError: if something cannot be read or is not known; the message names file and id.
    """
    content = read_json(file, "images", "annotations", "categories")
    name = file.stem
    if name not in vocabulary.objects:
        raise UserError(f"{file}: unknown object category {name}; known: {vocabulary.objects[:5]}")
    try:
        parts = {
            item["id"]: vocabulary.part_id(name, item["name"]) for item in content["categories"]
        }
        images = {item["id"]: item for item in content["images"]}
        keys = [str(item["file_name"]) for item in images.values()]
        sizes = {i: (int(item["height"]), int(item["width"])) for i, item in images.items()}
    except (KeyError, TypeError) as error:
        raise UserError(f"{file}: an image or category is malformed ({error!r})") from None
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
    for key, size in zip(keys, sizes.values(), strict=True):
        if not all(0 < side <= MAX_SIDE for side in size):
            raise UserError(f"{file}: {key} is {size[0]}x{size[1]} (height x width)")
    if len(images) < len(content["images"]) or len(set(keys)) < len(keys):
        raise UserError(f"{file} lists an image twice: ids and file names must be unique")
    if foreign := [key for key in keys if key.split("/")[0] != name]:
        raise UserError(f"{file} lists {foreign[0]}, which is not in the folder {name}/")
    instances: dict[Any, list[PartInstance]] = {image_id: [] for image_id in images}
    for item in content["annotations"]:
        if not isinstance(item, dict):
            raise UserError(f"{file}: an annotation is no JSON object")
        where = f"{file}: annotation {item.get('id')}"
        image_id, category = item.get("image_id"), item.get("category_id")
        if image_id not in images:
            raise UserError(f"{where}: unknown image_id {image_id}")
        if category not in parts:
            raise UserError(f"{where}: unknown category_id {category}; known: {sorted(parts)}")
        try:
            instances[image_id].append(_instance(item, parts[category], *sizes[image_id]))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UserError(f"{where}: unreadable ({error})") from None
    label = vocabulary.objects.index(name)
    return {
        key: ImageParts(key, label, *sizes[image_id], tuple(instances[image_id]))
        for key, image_id in zip(keys, images, strict=True)
    }


def _instance(item: dict[str, Any], part: int, height: int, width: int) -> PartInstance:
    counts = compress(item["segmentation"], height, width)
    rle = {"size": [height, width], "counts": counts}
    listed = item.get("bbox")
    box = coco_mask.toBbox(rle) if listed is None else listed
    x, y, w, h = (float(value) for value in box)
    score = float(item.get("score", 1.0))
    if not 0 <= score <= 1 or not np.isfinite([x, y, w, h]).all():
        raise UserError(f"score {score} or box {[x, y, w, h]} out of range")
    return PartInstance(part, counts, (x, y, x + w, y + h), score)
