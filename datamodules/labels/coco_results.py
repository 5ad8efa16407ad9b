"""Any segmenter's results in COCO's result format, as part instances by image."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from datamodules.annotations.files import read_any_json
from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.errors import MissingInputError, UserError, shown
from datamodules.labels.result_ids import ImageIds, ImageNames, Numbering, part_of
from datamodules.masks.part_labels import PartInstance
from datamodules.masks.segmentations import compress, numbers

UNNAMED = 0
"""Part id of a mask without a category."""


@dataclass(frozen=True)
class Results:
    """What a segmenter found.

    Attributes:
        instances: by key of the image, in file order; images without any are not there.
        named: whether all masks have a category; if not, none has, and all are `UNNAMED`.
        left_out: masks of images that are listed, but not among those asked for.
    """

    instances: dict[str, tuple[PartInstance, ...]]
    named: bool
    left_out: int


@dataclass(frozen=True)
class ResultReader:
    """Reads results of known images.

    Attributes:
        vocabulary: the known parts.
        labels: object category of every image by key.
        size_of: height and width of an image by key, None if its masks cannot be used.
        images: COCO file that numbers images and categories, or a folder with one of the name of
            each file of results, itself or in `json/`.
        ignore_categories: take all masks as without category.
        max_score: scores are 0 to this.
    """

    vocabulary: PartVocabulary
    labels: Mapping[str, int]
    size_of: Callable[[str], tuple[int, int] | None]
    images: Path | None = None
    ignore_categories: bool = False
    max_score: float = math.inf

    def read(self, source: Path) -> Results:
        """Reads a file of results, or all of a folder.

        A file is a list of `image_id, segmentation, score` and, optionally, `category_id`,
        `category_name` or `category`, `bbox`; or a COCO annotation file whose annotations have
        scores, and which numbers images and categories itself.

        Args:
            source: the file, or a folder of such files, themselves or in `json/`.

        Raises:
            MissingInputError: if there is no such file.
            UserError: if an entry does not fit; the message names file and entry.
        """
        found: dict[str, list[PartInstance]] = {}
        left_out, first_named = 0, None
        names = ImageNames(self.labels)
        for file in result_files(source):
            entries, numbering = self._open(file)
            ids = ImageIds(names, numbering)
            for place, entry in enumerate(entries):
                try:
                    key, instance = self._read_entry(entry, ids)
                except UserError as error:
                    raise UserError(f"{file}: entry {place}: {error}") from None
                if key is None or instance is None:
                    left_out += key is None
                    continue
                named = instance.part != UNNAMED
                first_named = named if first_named is None else first_named
                if named != first_named:
                    raise UserError(
                        f"{file}: entry {place} has {'a' if named else 'no'} category, those "
                        f"before {'none' if named else 'one'}: name all, or pass "
                        "--ignore_categories=true"
                    )
                found.setdefault(key, []).append(instance)
        if left_out and not found:
            raise UserError(
                f"{source}: none of its images is annotated: give the annotations of these images"
            )
        return Results(
            {key: tuple(instances) for key, instances in found.items()},
            bool(first_named),
            left_out,
        )

    def _open(self, file: Path) -> tuple[list[Any], Numbering | None]:
        content = read_any_json(file)
        if isinstance(content, dict) and isinstance(content.get("annotations"), list):
            own = isinstance(content.get("images"), list)
            if own and self.images is not None:
                raise UserError(
                    f"{file} numbers its images itself: leave out IMAGES= or --images, which says "
                    "it a second time"
                )
            numbering = Numbering.of_content(file, content) if own else self._numbering(file)
            return content["annotations"], numbering
        if not isinstance(content, list):
            raise UserError(
                f"{file} is neither a list of results nor a COCO file with 'annotations'"
            )
        return content, self._numbering(file)

    def _numbering(self, file: Path) -> Numbering | None:
        if self.images is None:
            return None
        if not self.images.is_dir():
            return Numbering.read(self.images)
        places = [self.images / "json" / file.name, self.images / file.name]
        for place in places:
            if place.is_file():
                return Numbering.read(place)
        raise MissingInputError(f"{places[0]} does not exist, which is to number {file}")

    def _read_entry(self, entry: Any, ids: ImageIds) -> tuple[str | None, PartInstance | None]:
        """Key and mask; no key for an image that is not asked for, no mask for an unusable one."""
        if not isinstance(entry, dict):
            raise UserError(f"{shown(entry)} is no JSON object")
        key, listed = ids.find(entry.get("image_id"))
        if key is None:
            return None, None
        size = self.size_of(key)
        if size is None:
            return key, None
        if any(a not in (0, b) for a, b in zip(listed, size, strict=True)):
            where = ids.numbering.file if ids.numbering else "the results"
            raise UserError(
                f"{key} is {listed[0]}x{listed[1]} in {where}, but is {size[0]}x{size[1]} "
                "(height x width): results must be of these images"
            )
        part: int | None = UNNAMED
        if not self.ignore_categories:
            owner = self.vocabulary.objects[self.labels[key]]
            part = part_of(entry, owner, ids.numbering, self.vocabulary)
        try:
            return key, self._instance(entry, UNNAMED if part is None else part, *size)
        except UserError as error:
            raise UserError(f"{key}: {error}") from None

    def _instance(self, entry: dict[str, Any], part: int, height: int, width: int) -> PartInstance:
        score = entry.get("score")
        if isinstance(score, bool) or not isinstance(score, int | float):
            raise UserError(f"its score is {shown(score)}, not a number")
        if not 0 <= score <= self.max_score or not math.isfinite(score):
            raise UserError(f"its score {score} is not within 0 and {self.max_score:g}")
        if entry.get("segmentation") is None:
            raise UserError("it has no segmentation: boxes alone are no results of a segmenter")
        counts = compress(entry["segmentation"], height, width)
        box = entry.get("bbox") or None
        if box is None:
            box = coco_mask.toBbox({"size": [height, width], "counts": counts}).tolist()
        values = numbers(box)
        if values is None or values.size != 4 or min(values[2:]) < 0:
            raise UserError(f"its bbox {shown(box)} is not [x, y, width, height]")
        x, y, w, h = (float(value) for value in values)
        return PartInstance(part, counts, (x, y, x + w, y + h), float(score))


def result_files(source: Path) -> list[Path]:
    """The files of results: `source` itself, or those of a folder or of its `json/`.

    Raises:
        MissingInputError: if there are none.
    """
    if source.is_file():
        return [source]
    files = sorted(source.glob("json/[!.]*.json")) or sorted(source.glob("[!.]*.json"))
    if not files:
        raise MissingInputError(
            f"{source} is no JSON file and no folder with such files: set RESULTS= or --results "
            "to a segmenter's results"
        )
    return files
