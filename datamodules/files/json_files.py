"""JSON objects in files that are there whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamodules.files.atomic_files import write_text
from datamodules.files.errors import MissingInputError, UserError


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object whole or not at all, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(content, indent=1, default=str))


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        path: file to read.
        remedy: what to do about a damaged file, such as `run that stage again`.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if it is no JSON object.
    """
    try:
        content = json.loads(path.read_bytes())  # finds UTF-8, with a mark or not, by itself
    except FileNotFoundError:
        raise MissingInputError(f"{path} does not exist") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): {remedy}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged (no JSON object): {remedy}")
    return content
