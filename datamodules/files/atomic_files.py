"""Files and folders that are there whole or not at all, wherever a run is cut."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def written_whole(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Gives a temporary name beside `path`, renamed to it when the block ends without an error.

    The folders above are made; after an error nothing stays of the file.

    Args:
        path: file to write.
        shared: several processes, on several machines too, may write this file at a time, each to
            a name of its own.
    """
    # no process id: containers on two nodes have the same
    ending = f"partial-{uuid4().hex}" if shared else "partial"
    partial = path.with_name(f".{path.name}.{ending}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """Gives an empty folder beside `folder` that replaces it when the block ends without an error.

    After an error the old folder, if there is one, stays as it was.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all, as UTF-8."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
