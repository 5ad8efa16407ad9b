"""The files of the PartImageNet++ layout, read without trust in what they hold."""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datamodules.files.errors import MissingInputError, UserError
from datamodules.images.image_files import is_image
from datamodules.masks.segmentations import shown


def read_any_json(file: Path) -> Any:
    """Reads JSON of any shape.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if it cannot be read or is not JSON; the message names it.
    """
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        raise MissingInputError(f"{file} does not exist") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror})") from None
    except RecursionError:
        raise UserError(f"{file} is nested too deeply: restore or remove it") from None
    except ValueError as error:
        raise UserError(f"{file} is not valid JSON ({error}): restore or remove it") from None


def read_json(file: Path, *keys: str) -> dict[str, Any]:
    """Reads a JSON object that must have lists under the given keys.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if the file is not JSON or lacks a list; the message names it.
    """
    content = read_any_json(file)
    for key in keys:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{file} has no list '{key}': it is not a PIN++ annotation file")
    return content


def part_name(category: Any) -> str:
    """Name of a part from an entry of `categories`, without blanks at its ends.

    Raises:
        UserError: if the entry names no part.
    """
    name = category.get("name") if isinstance(category, dict) else None
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"{shown(category)} has no 'name'")
    if ":" in name:
        raise UserError(f"part name {shown(name)} holds a colon, which parts object from part")
    return name.strip()


def blank_twins(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that differ by blanks at their ends alone; None if no two do."""
    first: dict[str, str] = {}
    for name in names:
        if first.setdefault(name.strip(), name) != name:
            return first[name.strip()], name
    return None


def read_relations(file: Path) -> list[tuple[int, str, str]]:
    """Reads `including/<object>.txt`, one `part:whole` a line.

    Returns:
        Line number from 1, part and whole, of the lines that are not blank; without a colon the
        whole is empty.

    Raises:
        UserError: if the file is not UTF-8 text; the message names it.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text ({error.reason})") from None
    relations = []
    for number, line in enumerate(lines, start=1):
        part, _, whole = line.partition(":")
        if line.strip():
            relations.append((number, part.strip(), whole.strip()))
    return relations


def read_discarded(file: Path) -> dict[str, frozenset[str]]:
    """Reads `discarded_data.json`, the images that the annotators left out.

    Taken are the `file_name` of every object and every string that looks like an image file,
    at any depth. A name without a folder belongs to the object before its last underscore, as
    in `n01440764_10026.JPEG`.

    Returns:
        File names (without folder) by object category.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if it is not JSON.
    """
    found = defaultdict(set)
    pending = [read_any_json(file)]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, str) and is_image(value.rpartition("/")[2]):
            folder, _, name = value.rpartition("/")
            found[folder.rpartition("/")[2] or name.rpartition("_")[0]].add(name)
    return {folder: frozenset(names) for folder, names in found.items()}
