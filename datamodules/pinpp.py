"""Reader of part annotations in the layout released with PartImageNet++."""

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal

from pycocotools import mask as coco_mask

from datamodules.part_labels import ImageParts, PartInstance
from datamodules.part_vocabulary import PartVocabulary, read_json

VAL_FRACTION = 0.1  # the 9:1 split of PartImageNet++ §3.2


def read_annotations(
    pinpp: Path, vocabulary: PartVocabulary, images: Path | None = None
) -> list[ImageParts]:
    """Reads `pinpp/json/<object>.json`, one COCO-style file per object category.

    Image and category ids start again in every file; parts become global ids by name.
    Segmentations may be polygons, uncompressed or compressed run lengths.

    Args:
        pinpp: folder that holds `json/`.
        vocabulary: must know every object and part that the files name.
        images: split folder (`imagenet/train`); when given, every listed image must exist.

    Returns:
        One record per image, sorted by key, instances in file order.

    Raises:
        FileNotFoundError: if the folder holds no files or a listed image does not exist.
        ValueError: if an annotation cannot be read; the message names file and id.
    """
    files = sorted((pinpp / "json").glob("*.json"))
    if not files:
        raise FileNotFoundError(f"{pinpp / 'json'} holds no annotation files (<object>.json)")
    records = [record for file in files for record in _read_file(file, vocabulary)]
    for record in records:
        if images is not None and not (images / record.key).is_file():
            raise FileNotFoundError(
                f"{pinpp / 'json' / record.key.split('/')[0]}.json lists {record.key}, but "
                f"{images / record.key} does not exist: add the image or remove the entry"
            )
    return sorted(records, key=lambda record: record.key)


def split_annotations(
    annotations: list[ImageParts], part: Literal["train", "val"], seed: int = 0
) -> list[ImageParts]:
    """The 9:1 split per object category (PartImageNet++ §3.2).

    Images are ranked by a seeded hash of their key within their category, so the split does
    not depend on their order, and a category with two or more images is never without val.
    """
    by_object = defaultdict(list)
    for record in annotations:
        by_object[record.label].append(record)
    val: set[str] = set()
    for records in by_object.values():
        ranked = sorted(records, key=lambda r: hashlib.sha256(f"{seed}:{r.key}".encode()).digest())
        count = max(1, round(VAL_FRACTION * len(ranked))) if len(ranked) > 1 else 0
        val.update(record.key for record in ranked[:count])
    return [record for record in annotations if (record.key in val) == (part == "val")]


def _read_file(file: Path, vocabulary: PartVocabulary) -> list[ImageParts]:
    content = read_json(file, "images", "annotations", "categories")
    name = file.stem
    if name not in vocabulary.objects:
        raise ValueError(f"{file}: unknown object category {name}; known: {vocabulary.objects[:5]}")
    try:
        part_ids = {c["id"]: vocabulary.part_id(name, c["name"]) for c in content["categories"]}
        images = {image["id"]: image for image in content["images"]}
        instances: dict[Any, list[PartInstance]] = {image_id: [] for image_id in images}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file}: an image or category lacks {error}") from None
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    for annotation in content["annotations"]:
        where = f"{file}: annotation {annotation.get('id')}"
        if annotation.get("image_id") not in images:
            raise ValueError(f"{where}: unknown image_id {annotation.get('image_id')}")
        if annotation.get("category_id") not in part_ids:
            raise ValueError(
                f"{where}: unknown category_id {annotation.get('category_id')}; "
                f"the file's categories are {sorted(part_ids)}"
            )
        image = images[annotation["image_id"]]
        try:
            rle = _compress(annotation["segmentation"], image["height"], image["width"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"{where}: unreadable segmentation ({error})") from None
        if coco_mask.area(rle) == 0:
            continue  # nothing to learn from, and a box without extent is no target
        x, y, width, height = (float(value) for value in coco_mask.toBbox(rle))
        instances[annotation["image_id"]].append(
            PartInstance(
                part_ids[annotation["category_id"]], rle["counts"], (x, y, x + width, y + height)
            )
        )
    label = vocabulary.objects.index(name)
    return [
        ImageParts(
            image["file_name"], label, image["height"], image["width"], tuple(instances[image_id])
        )
        for image_id, image in images.items()
    ]


def _compress(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """COCO's three spellings of a mask as one compressed run-length dict."""
    if isinstance(segmentation, list):
        if not segmentation or any(len(polygon) < 6 for polygon in segmentation):
            raise ValueError("a polygon needs three points or more")
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(
            f"mask is {segmentation['size'][0]}x{segmentation['size'][1]}, "
            f"its image {height}x{width} (height x width)"
        )
    if isinstance(segmentation["counts"], list):
        if sum(segmentation["counts"]) != height * width:
            raise ValueError(f"runs cover {sum(segmentation['counts'])} of {height * width} pixels")
        return coco_mask.frPyObjects(segmentation, height, width)
    counts = segmentation["counts"]
    return {
        "size": [height, width],
        "counts": counts.encode() if isinstance(counts, str) else counts,
    }
