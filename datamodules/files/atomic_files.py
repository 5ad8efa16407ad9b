"""Files that are there whole or not at all, wherever a run is cut."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`, renamed to it when the block ends without an error."""
    partial = path.with_name(f".{path.name}.partial")
    yield partial
    os.replace(partial, path)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all, as UTF-8."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
