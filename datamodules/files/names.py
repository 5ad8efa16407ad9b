"""Names of files: the operating system takes any bytes, tables and messages take text."""

import os
from collections.abc import Iterable
from pathlib import Path

from datamodules.files.errors import UserError


def is_utf8(name: str) -> bool:
    """Whether a name as the operating system gave it is UTF-8 text."""
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(path: str | Path) -> str:
    r"""A path for a message: bytes that are not UTF-8 become `\xe9`, as a shell takes them."""
    try:
        return os.fsencode(path).decode(errors="backslashreplace")
    except UnicodeEncodeError:  # out of a JSON file, no file can have this name
        return str(path).encode(errors="backslashreplace").decode()


def require_utf8(folder: Path, names: Iterable[str]) -> None:
    """Refuses names that no table could hold, before any work begins.

    Args:
        folder: what the names are in.
        names: of files or folders.

    Raises:
        UserError: naming the first name that is not UTF-8 text.
    """
    wrong = [name for name in names if not is_utf8(name)]
    if wrong:
        others = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(
            f"{printable(folder / min(wrong))}{others}: the name is not UTF-8 text: rename it "
            f"(convmv -f latin1 -t utf8 -r --notest {printable(folder)})"
        )
