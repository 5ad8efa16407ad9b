"""Reader of PartImageNet's own COCO files (He et al., ECCV 2022).

PartImageNet names its categories by super-category and part ("Quadruped Head", 40 in all) and says
an image's object category only in the file name (`n01440764_10029.JPEG`).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from rich.progress import track

from datamodules.annotations.files import read_json
from datamodules.annotations.image_entries import sides_of
from datamodules.files.errors import UserError
from datamodules.files.integers import IdReader
from datamodules.masks.segmentations import (
    MAX_PIXELS,
    MAX_SIDE,
    SegmentationError,
    compress,
    numbers,
    shown,
)

SEPARATORS = "[ _:-]+"
WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class PartMask:
    """One annotated part.

    Attributes:
        part: name without the super-category, such as `Side Mirror`.
        super_category: such as `Car`; empty where the file names none.
        segmentation: polygons `[[x, y, ...], ...]` in pixels, or a compressed COCO run length.
        box: `[x, y, width, height]` in pixels.
        area: in pixels.
    """

    part: str
    super_category: str
    segmentation: Any
    box: list[float]
    area: int


@dataclass(frozen=True)
class PartImage:
    """One annotated image.

    Attributes:
        object_name: object category, the WNID in ImageNet.
        file: file name without folders.
        height, width: size in pixels.
        masks: parts in file order.
        source: COCO file that lists it.
    """

    object_name: str
    file: str
    height: int
    width: int
    masks: tuple[PartMask, ...]
    source: Path


def read_part_imagenet(files: Sequence[Path]) -> tuple[list[PartImage], list[str]]:
    """Reads COCO files as PartImageNet releases them (`train.json`, `val.json`, `test.json`).

    Masks that cannot be used are left out and named: the release holds polygons of fewer than
    three points. Images without any usable mask are left out too, for they would teach that the
    object has no parts.

    Args:
        files: COCO files; their ids may overlap, their images may not.

    Returns:
        The images sorted by object and file, and one line for each thing left out.

    Raises:
        MissingInputError: if a file does not exist.
        UserError: if a file is not in the COCO format, repeats an id or an image, or says no
            object category.
    """
    images: dict[tuple[str, str], PartImage] = {}
    problems: list[str] = []
    for file in files:
        for image in _read_file(file, problems):
            key = image.object_name, image.file
            if key in images:
                raise UserError(f"{file}: {image.file} is listed twice: give every split once")
            images[key] = image
    kept = [images[key] for key in sorted(images) if images[key].masks]
    problems += [f"{o}/{f}: no usable mask" for (o, f) in images if not images[o, f].masks]
    return kept, problems


def super_categories(images: Iterable[PartImage]) -> dict[str, str]:
    """Super-category of every object category: the one that most of its masks name.

    Returns:
        Sorted by object; empty text where the files name no super-category.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for image in images:
        counts[image.object_name].update(mask.super_category for mask in image.masks)
    return {name: counts[name].most_common(1)[0][0] for name in sorted(counts)}


def group_by_super_category(images: Sequence[PartImage]) -> tuple[list[PartImage], list[str]]:
    """Makes the super-categories the objects: 11 objects and 40 parts for the whole release.

    Returns:
        The images with `object_name` replaced, and one line for each mask left out because it
        belongs to another super-category than its image.

    Raises:
        UserError: if the files name no super-categories, or two images would share a path.
    """
    groups = super_categories(images)
    grouped: dict[tuple[str, str], PartImage] = {}
    problems = []
    for image in images:
        group = groups[image.object_name]
        if not group:
            raise UserError(f"{image.object_name} has no super-category: use --naming object")
        masks = tuple(mask for mask in image.masks if mask.super_category == group)
        problems += [
            f"{image.object_name}/{image.file}: a mask of {mask.super_category} {mask.part}, but "
            f"{image.object_name} is a {group}"
            for mask in image.masks
            if mask.super_category != group
        ]
        if (group, image.file) in grouped:
            raise UserError(f"two images of {group} are called {image.file}: rename one")
        if masks:
            grouped[group, image.file] = replace(image, object_name=group, masks=masks)
    return [grouped[key] for key in sorted(grouped)], problems


def _read_file(file: Path, problems: list[str]) -> list[PartImage]:
    content, ids = read_json(file, "images", "annotations", "categories"), IdReader()
    try:
        listed = {kind: ids.of_entries(content[kind], kind) for kind in ("images", "categories")}
        names = _part_names(listed["categories"])
        sizes = {number: sides_of(i) for number, i in listed["images"]}
        files = {number: object_of(str(i["file_name"])) for number, i in listed["images"]}
    except (KeyError, TypeError) as error:
        raise UserError(f"{file}: an image or category lacks {error}") from None
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
    for number, size in sizes.items():
        if not 0 < min(size) <= max(size) <= MAX_SIDE or size[0] * size[1] > MAX_PIXELS:
            raise UserError(f"{file}: {files[number][1]} has no height and width in pixels")
    for kind, known in (("images", files), ("categories", names)):
        if len(known) != len(content[kind]):
            raise UserError(f"{file}: {kind} share an id, so masks cannot be told apart")
    masks: dict[Any, list[PartMask]] = {number: [] for number in files}
    for one in track(content["annotations"], f"Reading {file.name}", transient=True):
        if not isinstance(one, dict):
            problems.append(f"{file}: {shown(one)} is no annotation")
            continue
        where = f"{file}: annotation {shown(one.get('id'))}"
        image, category = (ids(one.get(key)) for key in ("image_id", "category_id"))
        if image not in files or category not in names:
            given = [shown(one.get(key)) for key in ("image_id", "category_id")]
            problems.append(f"{where}: unknown image_id {given[0]} or category_id {given[1]}")
            continue
        segmentation, rle, fault = _usable_mask(one.get("segmentation"), *sizes[image])
        if fault:
            problems.append(f"{where} of {files[image][1]}: {fault}")
        if rle is not None:
            box, area = coco_mask.toBbox(rle).tolist(), int(coco_mask.area(rle))
            above, part = names[category]
            masks[image].append(PartMask(part, above, segmentation, box, area))
    ids.warn(file)
    return [PartImage(*files[n], *sizes[n], tuple(masks[n]), file) for n in files]


def object_of(file_name: str) -> tuple[str, str]:
    """Object category and bare file name of a `file_name`, with or without folders.

    The category is the WNID that the file's name begins with; without one it is the folder, and
    without a folder the text before the first `_`.

    Raises:
        UserError: if the name says no category.
    """
    path = Path(file_name)
    first, _, rest = path.name.partition("_")
    name = first if WNID.fullmatch(first) and rest else path.parent.name or (rest and first)
    if name in ("", ".", ".."):
        raise UserError(f"{file_name} says no object category: name it like n01440764_10029.JPEG")
    return name, path.name


def _part_names(categories: Sequence[tuple[Any, dict[str, Any]]]) -> dict[Any, tuple[str, str]]:
    """Super-category and part name by category id; several spellings of a name are understood."""
    words = [re.split(SEPARATORS, str(one["name"]).strip(), maxsplit=1) for _, one in categories]
    first = Counter(pair[0] for pair in words if len(pair) > 1)
    names = {}
    for (number, one), pair in zip(categories, words, strict=True):
        name, above = str(one["name"]).strip(), str(one.get("supercategory") or "").strip()
        if not above and len(pair) > 1 and first[pair[0]] > 1:
            above = pair[0]  # the field is missing, and several names begin alike
        prefixed = re.fullmatch(f"{re.escape(above)}{SEPARATORS}(.+)", name, re.IGNORECASE)
        part = prefixed[1] if above and prefixed else name
        if not part or re.search(r"[/\\:]", part + above) or above in (".", ".."):
            raise UserError(f"category {number} '{above}' '{name}' cannot be a part's name")
        names[number] = above, part
    return names


def _usable_mask(segmentation: Any, height: int, width: int) -> tuple[Any, Any, str]:
    """What can be used of a segmentation, its run lengths (None if nothing), and the fault."""
    size, fault, good = [height, width], "", []
    if isinstance(segmentation, list):
        good = [one for one in segmentation if _is_polygon(one, max(size))]
        if len(good) < len(segmentation) or not good:
            fault = f"{len(segmentation) - len(good)} of {len(segmentation)} polygons unusable"
        if not good:
            return None, None, fault
    try:
        counts = compress(good or segmentation, height, width)
    except SegmentationError as error:
        if not good:
            return None, None, str(error)
        # it crosses the border of the image: kept as run lengths, which end there
        counts, good = coco_mask.merge(coco_mask.frPyObjects(good, *size))["counts"], []
    rle = {"size": size, "counts": counts}
    if not coco_mask.area(rle):
        return None, None, fault or "empty mask"
    return good or {"size": size, "counts": counts.decode()}, rle, fault


def _is_polygon(points: Any, side: int) -> bool:
    """Three points or more, all of them in the image or close to it."""
    found = numbers(points)
    # far points would take memory without end
    return found is not None and bool(
        found.size >= 6 and found.size % 2 == 0 and np.abs(found).max() <= 2 * side
    )
