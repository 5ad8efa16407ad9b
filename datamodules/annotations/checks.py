"""Finds what is wrong with one annotation file `json/<object>.json`.

The reader (`pinpp.py`) and the command `check_data` share these checks: what affects training is
what the reader refuses.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from datamodules.annotations.files import part_name, read_json
from datamodules.annotations.image_entries import image_fault, sides_of
from datamodules.annotations.problems import Problem
from datamodules.files.integers import IdReader
from datamodules.masks.segmentations import (
    SegmentationError,
    box_problem,
    compress,
    shown,
)


@dataclass(frozen=True)
class CheckedMask:
    """A mask that is sound.

    Attributes:
        entry: the annotation as the file has it, its ids plainly written.
        image, category: the file's ids of image and part.
        rle: compressed run lengths of the image's size.
        box: extent of the mask, `(x1, y1, x2, y2)` in pixels.
    """

    entry: dict[str, Any]
    image: int | str
    category: int | str
    rle: bytes
    box: tuple[float, float, float, float]


class CheckedFile:
    """An annotation file with its problems apart from its sound entries.

    Anything may be in the file; nothing but a `Problem` comes of it.

    Args:
        file: `json/<object>.json`.
        known_parts: part names the object may have; None takes those that the file lists.

    Attributes:
        problems: in the order of the file.
        others: what the file holds besides its three lists.
        categories: sound entries of `categories` by id.
        images: sound entries of `images` by id, in file order.
        masks: sound, non-empty masks of sound images, in file order.
    """

    def __init__(self, file: Path, known_parts: Collection[str] | None = None) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.others: dict[str, Any] = {}
        self.categories: dict[Any, dict[str, Any]] = {}
        self.images: dict[Any, dict[str, Any]] = {}
        self.masks: list[CheckedMask] = []
        self._listed: dict[str, set[Any]] = {"category": set(), "image": set()}
        self._id = IdReader()
        try:
            content = read_json(file, "images", "annotations", "categories")
        except (ValueError, FileNotFoundError) as error:
            self.report("unreadable_file", "", str(error).removeprefix(f"{file} "))
            return
        lists = {key: content.pop(key) for key in ("categories", "images", "annotations")}
        self.others = content
        try:
            self._check_categories(lists["categories"], known_parts)
            self._check_images(lists["images"])
            self._check_annotations(lists["annotations"])
            if remark := self._id.remark:
                self.report("unusual_id", "", remark)
        except RecursionError:
            self.report("unreadable_file", "", "is nested too deeply: restore or remove it")

    def report(self, kind: str, entry: str, message: str) -> None:
        """Adds a problem."""
        self.problems.append(Problem(kind, str(self.file), entry, message))

    @property
    def readable(self) -> bool:
        """Whether the file could be read at all."""
        return all(problem.kind != "unreadable_file" for problem in self.problems)

    def drop_images(self, image_ids: Collection[int | str]) -> None:
        """Takes images and their masks out of the sound entries."""
        dropped = set(image_ids)
        self.images = {key: image for key, image in self.images.items() if key not in dropped}
        self.masks = [mask for mask in self.masks if mask.image not in dropped]

    def sound_content(self) -> dict[str, Any]:
        """The file without its bad entries; ids of annotations that repeat become new ones."""
        given = [mask.entry["id"] for mask in self.masks if "id" in mask.entry]
        free = itertools.count(1 + max((i for i in given if isinstance(i, int)), default=0))
        used: set[Any] = set()
        annotations = []
        for mask in self.masks:
            entry = mask.entry
            if "id" in entry and entry["id"] in used:
                entry = entry | {"id": next(free)}
            used.add(entry.get("id"))
            annotations.append(entry)
        return self.others | {
            "images": list(self.images.values()),
            "annotations": annotations,
            "categories": list(self.categories.values()),
        }

    def _check_categories(self, entries: list[Any], known_parts: Collection[str] | None) -> None:
        written: dict[str, str] = {}
        for category_id, entry in self._unique("category", entries):
            where = f"category {shown(category_id)}"
            try:
                name = part_name(entry)
            except ValueError as error:
                self.report("malformed_entry", where, str(error))
                continue
            if known_parts is not None and name not in known_parts:
                self.report("unknown_category", where, f"unknown part {shown(name)}")
                continue
            given = entry["name"]
            other = written.setdefault(name, given)
            if other != given:
                message = f"{shown(given)} and {shown(other)} differ by blanks alone: rename one"
                self.report("malformed_entry", where, message)
                continue
            if any(name == known["name"] for known in self.categories.values()):
                self.report("duplicate_category_name", where, f"{shown(name)} is listed twice")
            if given != name:
                self.report("padded_name", where, f"{shown(given)} is read without its blanks")
            self.categories[category_id] = entry | {"name": name}

    def _check_images(self, entries: list[Any]) -> None:
        names: set[str] = set()
        for image_id, entry in self._unique("image", entries):
            where = f"image {shown(image_id)}"
            if fault := image_fault(entry, self.file.stem):
                self.report(fault[0], where, fault[1])
            elif entry["file_name"] in names:
                message = f"{shown(entry['file_name'])} is listed twice"
                self.report("duplicate_file_name", where, message)
            else:
                height, width = sides_of(entry)
                names.add(entry["file_name"])
                self.images[image_id] = entry | {"height": height, "width": width}

    def _unique(self, what: str, entries: list[Any]) -> list[tuple[Any, dict[str, Any]]]:
        """Entries with an id of their own; of equal entries the first."""
        by_id: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        spellings: dict[Any, set[str]] = defaultdict(set)
        for position, entry in enumerate(entries):
            given = entry.get("id") if isinstance(entry, dict) else None
            entry_id = self._id(given)
            if entry_id is not None:
                by_id[entry_id].append(entry | {"id": entry_id})
                spellings[entry_id].add(shown(given))
            else:
                message = f"{shown(entry)} has no id: it must be a number from 0 on, or text"
                self.report("malformed_entry", f"{what} at position {position}", message)
        self._listed[what] = set(by_id)
        for entry_id, same in by_id.items():
            if len(same) > 1:
                written = " and ".join(sorted(spellings[entry_id]))
                message = f"{len(same)} entries share this id (written {written})"
                self.report("duplicate_id", f"{what} {shown(entry_id)}", message)
        return [
            (entry_id, same[0])
            for entry_id, same in by_id.items()
            if all(entry == same[0] for entry in same[1:])
        ]

    def _check_annotations(self, entries: list[Any]) -> None:
        seen: Counter[Any] = Counter()
        known = set()
        for position, entry in enumerate(entries):
            number = self._id(entry.get("id", position)) if isinstance(entry, dict) else None
            if number is None:
                where, message = f"annotation at position {position}", f"{shown(entry)} has no id"
                message = f"{message} that is a number from 0 on, or text"
                self.report("malformed_entry", where, message)
                continue
            where = f"annotation {shown(entry.get('id', f'at position {position}'))}"
            if "id" in entry:
                entry["id"] = number
                seen[number] += 1
                if seen[number] == 2:
                    message = "annotations share this id, which training does not use"
                    self.report("duplicate_annotation_id", where, message)
            mask = self._checked_mask(entry, where)
            if mask is None:
                continue
            if (mask.image, mask.category, mask.rle) in known:
                message = "its mask of its part is listed twice; training takes one"
                self.report("duplicate_mask", where, message)
            else:
                known.add((mask.image, mask.category, mask.rle))
                self.masks.append(mask)
        shown_parts = {self.categories[mask.category]["name"] for mask in self.masks}
        parts = {entry["name"] for entry in self.categories.values()}
        if absent := sorted(parts - shown_parts):
            message = f"{len(absent)} of {len(parts)} parts have no mask: {shown(absent)}"
            self.report("category_without_masks", "", message)
        with_parts = {mask.image for mask in self.masks}
        for image_id in (image_id for image_id in self.images if image_id not in with_parts):
            self.report("image_without_parts", f"image {shown(image_id)}", "it shows no part")

    def _checked_mask(self, entry: dict[str, Any], where: str) -> CheckedMask | None:
        image_id, category_id = (self._id(entry.get(key)) for key in ("image_id", "category_id"))
        if image_id is None or image_id not in self._listed["image"]:
            self.report("unknown_image", where, f"unknown image_id {shown(entry.get('image_id'))}")
        elif category_id is None or category_id not in self._listed["category"]:
            message = f"unknown category_id {shown(entry.get('category_id'))}; the file's "
            message += f"categories are {shown(list(self.categories))}"
            self.report("unknown_category", where, message)
        elif image_id in self.images and category_id in self.categories:
            image = self.images[image_id]
            height, width = image["height"], image["width"]
            try:
                counts = compress(entry.get("segmentation"), height, width)
            except SegmentationError as error:
                self.report(error.kind, where, f"unreadable segmentation ({error})")
                return None
            rle = {"size": [height, width], "counts": counts}
            if not coco_mask.area(rle):
                self.report("empty_mask", where, "its mask covers no pixel; training leaves it out")
                return None
            x, y, w, h = (float(value) for value in coco_mask.toBbox(rle))
            entry |= {"image_id": image_id, "category_id": category_id}
            mask = CheckedMask(entry, image_id, category_id, counts, (x, y, x + w, y + h))
            return mask if self._box_is_near(mask, where) else None
        return None  # its image or category has a problem of its own

    def _box_is_near(self, mask: CheckedMask, where: str) -> bool:
        found = box_problem(mask.entry.get("bbox"), mask.box)
        if found is not None:
            self.report(found[0], where, found[1])
        return found is None or found[0] == "box_mismatch"
