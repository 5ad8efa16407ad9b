"""Smaller copies of all training images, which take less time to decode.

`FOLDER/train/<object>/<file>` are JPEGs under the names of their originals, `FOLDER/train.parquet`
lists them with the sizes of the originals; it is written last, so its presence says that all is
there. `FOLDER/index/<object>.parquet` are its parts, by which a stopped command goes on.
"""

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from datamodules.files.atomic_files import write_text, written_whole
from datamodules.files.errors import MissingInputError, UserError
from datamodules.images.image_files import is_image, opened_image, read_image

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        # of the original, in pixels; 0 if it cannot be decoded
        ("height", pa.int32()),
        ("width", pa.int32()),
        # file size and time of last change of the original
        ("bytes", pa.int64()),
        ("changed_ns", pa.int64()),
    ]
)
REMEDY = "run python -m pipeline resize_images"


def resized_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of the copy of an image: shorter side `side`, never enlarged."""
    scale = side / min(height, width)
    return (height, width) if scale >= 1 else (round(height * scale), round(width * scale))


@dataclass(frozen=True)
class Settings:
    """How copies are made.

    Attributes:
        side: shorter side of a copy in pixels; smaller originals keep their size.
        quality: of the JPEGs, 1 to 95.
    """

    side: int = 256
    quality: int = 92


def claim(folder: Path, settings: Settings) -> None:
    """Makes a folder the place of copies made with these settings.

    Raises:
        UserError: if the settings make no sense, or the folder has others or other content.
    """
    if settings.side < 1 or not 1 <= settings.quality <= 95:
        raise UserError(f"{settings}: side must be at least 1, quality from 1 to 95")
    file = folder / "settings.json"
    if file.is_file():
        if (found := _settings(folder)) != settings:
            raise UserError(f"{folder} holds copies of {found}, not {settings}: name another")
        return
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no resized images: name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(asdict(settings)))


def _settings(folder: Path) -> Settings:
    file = folder / "settings.json"
    try:
        return Settings(**json.loads(file.read_text()))
    except FileNotFoundError:
        raise MissingInputError(f"{folder} holds no resized images: {REMEDY} first") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}): delete {folder} and {REMEDY}") from None


def resize_object(task: tuple[Path, Path, str]) -> list[str]:
    """Makes the copies of one object category that are not there yet.

    Args:
        task: split folder (`imagenet/train`), claimed folder of the copies, category.

    Returns:
        What is wrong with the images that cannot be decoded; they have no copy.
    """
    source, folder, name = task
    settings, target = _settings(folder), folder / source.name / name
    target.mkdir(parents=True, exist_ok=True)
    index = folder / "index" / f"{name}.parquet"
    known = {row["key"]: row for row in _read(index)} if index.is_file() else {}
    copies, rows, errors = set(os.listdir(target)), [], []
    for entry in sorted(os.scandir(source / name), key=lambda entry: entry.name):
        if not is_image(entry.name):
            continue
        state = entry.stat()
        row = known.get(f"{name}/{entry.name}")
        same = row and (row["bytes"], row["changed_ns"]) == (state.st_size, state.st_mtime_ns)
        if not (same and row and row["height"] and entry.name in copies):
            try:
                # without an index the command was stopped here, and newer copies are its own
                height, width = _copy(Path(entry.path), target / entry.name, settings, not known)
            except ValueError as error:
                errors.append(str(error))
                height = width = 0
            row = {"key": f"{name}/{entry.name}", "height": height, "width": width}
            row |= {"bytes": state.st_size, "changed_ns": state.st_mtime_ns}
        rows.append(row)
    if rows != list(known.values()):
        _write(index, rows)
    return errors


def _copy(source: Path, target: Path, settings: Settings, keep_newer: bool) -> tuple[int, int]:
    """Makes one copy, whole or not at all: the size of the original."""
    try:
        with opened_image(source) as header:
            width, height = header.size
            plain = header.format == "JPEG" and header.mode in ("RGB", "L")
        copied = keep_newer and target.is_file()
        if copied and target.stat().st_mtime_ns > source.stat().st_mtime_ns:
            return height, width
    except UserError:
        plain = False  # what is wrong is said below
    image = read_image(source)
    height, width = image.height, image.width
    small = resized_size(height, width, settings.side)
    with written_whole(target) as partial:
        if plain and small == (height, width):
            shutil.copyfile(source, partial)
        else:
            image = image.resize(small[::-1], Image.Resampling.BICUBIC)
            image.save(partial, "JPEG", quality=settings.quality)
    return height, width


def finish(folder: Path, objects: Iterable[str]) -> int:
    """Writes the list of all copies from those of the object categories: how many there are."""
    rows = [row for name in objects for row in _read(folder / "index" / f"{name}.parquet")]
    _write(folder / "train.parquet", sorted(rows, key=lambda row: row["key"]))
    return sum(row["height"] > 0 for row in rows)


def _read(file: Path) -> list[dict[str, Any]]:
    return _table(file).to_pylist()


def _table(file: Path) -> pa.Table:
    try:
        return pq.read_table(file, schema=SCHEMA)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} is damaged ({error}): delete it and {REMEDY} again") from None


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    with written_whole(file) as partial:
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), partial)


class ResizedStore:
    """The copies in a folder.

    Args:
        folder: what `pipeline.annotations.resize_images` wrote.

    Attributes:
        images: folder of the copies, by key.
        side: their shorter side in pixels.

    Raises:
        MissingInputError: if the folder holds no copies, or not all.
        UserError: if its files are damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.side = _settings(folder).side
        self.images = folder / "train"
        if not (folder / "train.parquet").is_file():
            raise MissingInputError(f"{folder} is not complete: {REMEDY} again, it goes on")

    def check(self, keys: Sequence[str], heights: np.ndarray, widths: np.ndarray) -> None:
        """Refuses copies that lack an image or were made of an original of another size.

        Args:
            keys: of all images that are wanted.
            heights: of their originals in pixels, `(len(keys),)`.
            widths: of their originals in pixels, `(len(keys),)`.

        Raises:
            UserError: naming the first such image.
        """
        table = _table(self.folder / "train.parquet")
        table = table.filter(pc.greater(table["height"], 0))
        places = pc.index_in(pa.array(keys, pa.string()), table["key"].combine_chunks())
        found = places.fill_null(-1).to_numpy()
        if (found < 0).any():
            missing = np.flatnonzero(found < 0)
            raise UserError(
                f"{self.folder} has no copy of {keys[missing[0]]} and {len(missing) - 1} more "
                f"training images: {REMEDY} again"
            )
        sizes = [table[name].to_numpy()[found] for name in ("height", "width")]
        if (wrong := np.flatnonzero((sizes[0] != heights) | (sizes[1] != widths))).size:
            at = wrong[0]
            raise UserError(
                f"{self.folder}: the original of {keys[at]} was {sizes[0][at]}x{sizes[1][at]}, its "
                f"part labels are {heights[at]}x{widths[at]}: {REMEDY} again, or "
                "delete the labels' run folder and run make stage2-pseudolabels again"
            )
