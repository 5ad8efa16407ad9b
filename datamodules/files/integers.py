"""Whole numbers and ids as people and programs write them in JSON."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamodules.files.errors import UserError, shown

EXACT = 2**53  # floats beyond it may stand for several integers
_DIGITS = re.compile(r"0|[1-9][0-9]{0,15}")


def whole_number(value: Any) -> int | None:
    """An integer written 64 or 64.0; None for anything else, `true` included."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= EXACT:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def as_id(value: Any) -> int | str | None:
    """An id: a number from 0 on, also written 12.0 or "12", or other text.

    Text of other digits, such as "012", stays text: it may be meant to differ from 12.

    Returns:
        None if it is neither: null, `true`, a list, a negative number or a fraction, blank text.
    """
    if isinstance(value, str):
        text = value.strip()
        return int(text) if _DIGITS.fullmatch(text) else (value if text else None)
    number = whole_number(value)
    return None if number is None or number < 0 else number


class IdReader:
    """Reads the ids of one file and remembers those that are not plainly written.

    Attributes:
        unusual: how many numbers were written as text or with a point.
    """

    def __init__(self) -> None:
        self.unusual = 0
        self._first: Any = None

    def __call__(self, value: Any) -> int | str | None:
        """The id, see `as_id`."""
        number = as_id(value)
        if isinstance(number, int) and not isinstance(value, int):
            self._first = value if self._first is None else self._first
            self.unusual += 1
        return number

    def of_entries(self, entries: Sequence[Any], kind: str) -> list[tuple[int | str, Any]]:
        """Entries of a list with their ids.

        Raises:
            UserError: if an entry has none; the message tells its place in the list `kind`.
        """
        found = []
        for position, entry in enumerate(entries):
            number = self(entry.get("id")) if isinstance(entry, dict) else None
            if number is None:
                raise UserError(
                    f"entry {position} of {kind} is {shown(entry)}, without an id that is a number "
                    "from 0 on, or text"
                )
            found.append((number, entry))
        return found

    @property
    def remark(self) -> str:
        """What is unusual, in words; empty when nothing is."""
        if not self.unusual:
            return ""
        return f"{self.unusual} ids are written like {self._first!r}; they are read as numbers"

    def warn(self, file: Path) -> None:
        """Warns once, if an id was not plainly written."""
        if self.unusual:
            warnings.warn(f"{file}: {self.remark}", stacklevel=2)
