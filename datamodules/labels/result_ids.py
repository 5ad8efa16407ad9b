"""What the ids in a file of results stand for: images by key or number, parts by name or number."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.annotations.files import part_name, read_json
from datamodules.annotations.image_entries import sides_of
from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.errors import UserError, shown
from datamodules.files.integers import IdReader, as_id

NUMBERED = (
    "numbers mean nothing by themselves, as the ids of PIN++ start again in every file: give the "
    "COCO file that numbers them (IMAGES= or --images), or write names"
)


@dataclass(frozen=True)
class Numbering:
    """The ids of one COCO file.

    Attributes:
        file: where they are from.
        images: file name by id.
        sizes: height and width in pixels by id, 0 where the file does not say.
        categories: name by id.
    """

    file: Path
    images: Mapping[int | str, str]
    sizes: Mapping[int | str, tuple[int, int]]
    categories: Mapping[int | str, str]

    @classmethod
    def read(cls, file: Path) -> "Numbering":
        """Reads a COCO file with `images` and, optionally, `categories`.

        Raises:
            MissingInputError: if there is no such file.
            UserError: if it is no such file, or an id stands for two things.
        """
        return cls.of_content(file, read_json(file, "images"))

    @classmethod
    def of_content(cls, file: Path, content: Mapping[str, Any]) -> "Numbering":
        """The same from the content of a file."""
        ids = IdReader()
        try:
            images = ids.of_entries(content["images"], "images")
            categories = ids.of_entries(content.get("categories") or [], "categories")
            names = {number: _category_name(entry) for number, entry in categories}
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
        for kind, entries in (("image", images), ("category", categories)):
            seen: set[int | str] = set()
            for number, _ in entries:
                if number in seen:
                    raise UserError(f"{file}: two entries have the {kind} id {shown(number)}")
                seen.add(number)
        for number, entry in images:
            if not isinstance(entry.get("file_name"), str):
                raise UserError(
                    f"{file}: image {shown(number)}: its file_name is "
                    f"{shown(entry.get('file_name'))}, not text"
                )
        ids.warn(file)
        return cls(
            file,
            {number: entry["file_name"] for number, entry in images},
            {number: sides_of(entry) for number, entry in images},
            names,
        )


class ImageNames:
    """Images by key `object/file` and by file name alone."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._by_name: dict[str, list[str]] = {}
        for key in keys:
            for name in {key, key.rpartition("/")[2]}:
                self._by_name.setdefault(name, []).append(key)

    def find(self, name: str) -> str | None:
        """The key of the image of a name, None if there is none.

        Raises:
            UserError: if more than one has this name.
        """
        keys = self._by_name.get(name, [])
        if len(keys) > 1:
            raise UserError(
                f"image {shown(name)} may be {keys[0]} or {keys[1]}: write the folder, too"
            )
        return keys[0] if keys else None


@dataclass(frozen=True)
class ImageIds:
    """Finds the image that an `image_id` means.

    Attributes:
        names: the images that may be meant.
        numbering: what numbers stand for; None where no file says so.
    """

    names: ImageNames
    numbering: Numbering | None

    def find(self, image_id: Any) -> tuple[str | None, tuple[int, int]]:
        """The image's key and what the numbering says of its height and width (0: nothing).

        The key is None for an image that the numbering lists and that is none of the images.

        Raises:
            UserError: if no image is meant, or more than one may be.
        """
        number = as_id(image_id)
        listed = self.numbering.images if self.numbering else {}
        if number is not None and number in listed and self.numbering:
            key = self.names.find(listed[number])
            other = self.names.find(image_id) if isinstance(image_id, str) else None
            if other not in (None, key):
                raise UserError(
                    f"image_id {shown(image_id)} is the id of {listed[number]} in "
                    f"{self.numbering.file} and the name of {other}: rename one"
                )
            return key, self.numbering.sizes[number]
        if isinstance(number, int):
            where = f"not listed in {self.numbering.file}" if self.numbering else NUMBERED
            raise UserError(f"image_id {shown(image_id)}: {where}")
        key = self.names.find(image_id) if isinstance(image_id, str) else None
        if key is None:
            raise UserError(
                f"unknown image_id {shown(image_id)}: no id of --images and no name of one "
                "of the images that are asked for, such as n01440764/n01440764_10026.JPEG"
            )
        return key, (0, 0)


def part_of(
    entry: Mapping[str, Any],
    object_name: str,
    numbering: Numbering | None,
    vocabulary: PartVocabulary,
) -> int | None:
    """Part id of an entry of results, None if it names no category.

    A name is `object:part`, or `part` alone for the part of the image's own object.

    Args:
        entry: `category_name` or `category` hold a name, `category_id` a number or a name.
        object_name: object category of the image.
        numbering: what numbers stand for.
        vocabulary: the known parts.

    Raises:
        UserError: if the category is not known, or names and numbers say different things.
    """
    given = [entry[key] for key in ("category_name", "category") if entry.get(key) is not None]
    number = entry.get("category_id")
    if isinstance(number, str) and not isinstance(as_id(number), int):
        given.append(number)
        number = None
    if number is not None and (not given or (numbering and as_id(number) in numbering.categories)):
        given.append(_numbered(number, numbering))
    if not given:
        return None
    parts = {_part_id(name, object_name, vocabulary) for name in given}
    if len(parts) > 1:
        raise UserError(f"its categories {', '.join(map(shown, given))} are different parts")
    return parts.pop()


def _numbered(number: Any, numbering: Numbering | None) -> str:
    if numbering is None or not numbering.categories:
        raise UserError(
            f"category_id {shown(number)}: {NUMBERED}; --ignore_categories=true scores masks alone"
        )
    known = as_id(number)
    if known is None or known not in numbering.categories:
        raise UserError(
            f"unknown category_id {shown(number)}; {numbering.file} has "
            f"{shown(list(numbering.categories))}"
        )
    return numbering.categories[known]


def _part_id(name: Any, object_name: str, vocabulary: PartVocabulary) -> int:
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"its category {shown(name)} is no name")
    owner, _, part = name.strip().rpartition(":")
    try:
        return vocabulary.part_id(owner or object_name, part)
    except UserError as error:
        hint = "" if owner else "; write object:part for a part of another object"
        raise UserError(f"unknown category {shown(name)}: {error}{hint}") from None


def _category_name(entry: dict[str, Any]) -> str:
    """Name of an entry of `categories`, which may hold `object:part` here."""
    name = entry.get("name")
    owner, colon, part = name.rpartition(":") if isinstance(name, str) else ("", "", "")
    if colon:
        return f"{owner}:{part_name({'name': part})}"
    return part_name(entry)
