"""Coarse categories and parts made of fine ones, by a table that can be read and edited."""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from datamodules.annotations.object_parts import AnnotatedObject
from datamodules.files.errors import MissingInputError, UserError, shown

TABLES = Path(__file__).with_name("groupings")
_NAME = re.compile(r"[^/\\:.][^/\\:]*")  # a folder, and what stands before or after a colon


@dataclass(frozen=True)
class CoarseObject:
    """An object category of a grouping.

    Attributes:
        classes: categories of the annotation that belong to it.
        parts: coarse part and the pattern of the fine parts that make it, in order: a pixel of
            several coarse parts belongs to the first.
    """

    classes: tuple[str, ...]
    parts: tuple[tuple[str, re.Pattern[str]], ...]


@dataclass(frozen=True)
class PartGrouping:
    """Coarse categories, each with its coarse parts.

    Attributes:
        file: the table, for messages.
        objects: by the name of the coarse category.
    """

    file: Path
    objects: dict[str, CoarseObject]

    @cached_property
    def coarse_name(self) -> dict[str, str]:
        """Coarse category by category of the annotation."""
        return {one: name for name, group in self.objects.items() for one in group.classes}

    def rename(self, one: AnnotatedObject) -> AnnotatedObject:
        """The object in its coarse category; a category that the table lacks stays as it is."""
        return replace(one, name=self.coarse_name.get(one.name, one.name))

    def merge_parts(self, one: AnnotatedObject) -> tuple[AnnotatedObject, list[str]]:
        """Makes coarse parts of an object's fine parts, one mask for each that has a pixel.

        Args:
            one: an object of a coarse category.

        Returns:
            The object, and `object:part` for each mask of a part that the table lacks.
        """
        group = self.objects[one.name]
        free = np.ones(one.mask.shape, bool)
        parts = []
        for name, pattern in group.parts:
            masks = [mask for fine, mask in one.parts if pattern.fullmatch(fine)]
            merged = np.logical_or.reduce([np.zeros_like(free), *masks]) & free
            free &= ~merged
            if merged.any():
                parts.append((name, merged))
        unknown = [
            f"{one.name}:{fine}"
            for fine, _ in one.parts
            if not any(pattern.fullmatch(fine) for _, pattern in group.parts)
        ]
        return replace(one, parts=tuple(parts)), unknown

    def require_classes(self, known: frozenset[str]) -> None:
        """Refuses a table with a category that the annotations do not know.

        Raises:
            UserError: naming it.
        """
        for name in sorted(set(self.coarse_name) - known):
            raise UserError(
                f"{self.file}: {shown(name)} is no category of the annotations; they know "
                f"{', '.join(sorted(known))}"
            )


def read_grouping(name: str, annotation_format: str) -> PartGrouping:
    """Reads a grouping table.

    Args:
        name: of a table in `groupings/<format>/`, or the path of a YAML file: coarse category ->
            `classes` (by default the category itself) and `parts`, coarse part -> list of regular
            expressions that match whole names of fine parts, their numbers stripped.
        annotation_format: format of the annotations.

    Raises:
        MissingInputError: if there is no such table.
        UserError: if the table is malformed; the message names the entry.
    """
    shipped = {path.stem: path for path in sorted((TABLES / annotation_format).glob("*.yaml"))}
    file = shipped.get(name, Path(name))
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingInputError(
            f"no grouping {shown(name)}: give a YAML file or one of {', '.join(shipped)}"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file} cannot be read as a grouping table ({reason})") from None
    entries = _mapping(content, f"{file}: the table")
    objects = {_name(key, file): _coarse_object(key, entries[key], file) for key in entries}
    owners: dict[str, str] = {}
    for key, group in objects.items():
        for one in group.classes:
            if owners.setdefault(one, key) != key:
                raise UserError(f"{file}: {one} is in {owners[one]} and in {key}: remove one")
    return PartGrouping(file, objects)


def _coarse_object(name: str, entry: Any, file: Path) -> CoarseObject:
    fields = _mapping(entry, f"{file}: {name}")
    if wrong := sorted(set(map(str, fields)) - {"classes", "parts"}):
        raise UserError(f"{file}: {name} has {shown(wrong[0])}, known are classes and parts")
    classes = _texts(fields.get("classes", [name]), f"{file}: classes of {name}")
    parts = []
    for part, patterns in _mapping(fields.get("parts"), f"{file}: parts of {name}").items():
        where = f"{file}: {name}:{_name(part, file)}"
        texts = _texts(patterns, where)
        try:
            pattern = re.compile("|".join(f"(?:{text})" for text in texts))
        except re.error as error:
            raise UserError(f"{where}: {shown(texts)} are no patterns ({error})") from None
        parts.append((part, pattern))
    return CoarseObject(tuple(classes), tuple(parts))


def _name(value: Any, file: Path) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise UserError(f"{file}: {shown(value)} cannot be the name of a category or part")
    return value


def _mapping(value: Any, where: str) -> dict[Any, Any]:
    if not isinstance(value, dict) or not value:
        raise UserError(f"{where} must be a mapping with entries, not {shown(value)}")
    return value


def _texts(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise UserError(f"{where} must be a list of text, not {shown(value)}")
    return value
