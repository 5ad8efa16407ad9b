"""Part labels as COCO JSON, one file per object category: the released layout of PartImageNet++.

Unlike human annotations, these carry a score.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from datamodules.annotations.files import part_name as part_name_of
from datamodules.annotations.files import read_json
from datamodules.annotations.image_entries import image_fault, sides_of
from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.errors import UserError, shown
from datamodules.files.integers import IdReader
from datamodules.labels.result_ids import part_of
from datamodules.masks.part_labels import ImageParts, PartInstance
from datamodules.masks.segmentations import compress


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
    there are those of the masks, a score that is not there is 1, and a `category_name` or
    `category` stands for a `category_id` that is not there.

    Returns:
        One record per image by its key, instances in file order.

    Raises:
        UserError: if something cannot be read or is not known; the message names file and id.
    """
    content = read_json(file, "images", "annotations", "categories")
    name, ids = file.stem, IdReader()
    if name not in vocabulary.objects:
        raise UserError(f"{file}: unknown object category {name}; known: {vocabulary.objects[:5]}")
    try:
        parts = {
            number: vocabulary.part_id(name, part_name_of(item))
            for number, item in ids.of_entries(content["categories"], "categories")
        }
        images = dict(ids.of_entries(content["images"], "images"))
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
    for number, item in images.items():
        if fault := image_fault(item, name):
            raise UserError(f"{file}: image {shown(number)}: {fault[1]}")
    keys = [item["file_name"] for item in images.values()]
    sizes = {number: sides_of(item) for number, item in images.items()}
    if len(images) < len(content["images"]) or len(set(keys)) < len(keys):
        raise UserError(f"{file} lists an image twice: ids and file names must be unique")
    if len(parts) < len(content["categories"]):
        raise UserError(f"{file}: two categories share an id: masks cannot be told apart")
    instances: dict[Any, list[PartInstance]] = {image_id: [] for image_id in images}
    for item in content["annotations"]:
        if not isinstance(item, dict):
            raise UserError(f"{file}: an annotation is no JSON object")
        where = f"{file}: annotation {item.get('id')}"
        image_id, category = (ids(item.get(key)) for key in ("image_id", "category_id"))
        if image_id not in images:
            raise UserError(f"{where}: unknown image_id {shown(item.get('image_id'))}")
        named = None
        if item.get("category_id") is None:
            try:
                named = part_of(item, name, None, vocabulary)
            except UserError as error:
                raise UserError(f"{where}: {error}") from None
        part = named if category is None else parts.get(category)
        if part is None:
            given = f"unknown category_id {shown(item.get('category_id'))}"
            raise UserError(f"{where}: {given}; known: {shown(list(parts))}")
        try:
            instances[image_id].append(_instance(item, part, *sizes[image_id]))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UserError(f"{where}: unreadable ({error})") from None
    ids.warn(file)
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
