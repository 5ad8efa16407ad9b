"""Writer of part annotations in the layout released with PartImageNet++."""

import json
import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from datamodules.annotations.part_imagenet import PartImage

_LISTS = ("images", "annotations")


class PinppWriter:
    """Writes `out/json/<object>.json` from images that come one at a time, in flat memory.

    Ids start at 1 in every file, in the order in which images, masks and parts come. Nothing can
    be read before `finish`: until then the entries lie in hidden files.

    Args:
        out: folder without `json/`.

    Attributes:
        parts: part names of every object, in the order of their ids.

    Raises:
        FileExistsError: if `out/json` exists.
    """

    def __init__(self, out: Path) -> None:
        self.parts: dict[str, list[str]] = defaultdict(list)
        self._folder = out / "json"
        self._folder.mkdir(parents=True)
        self._counts: dict[tuple[str, str], int] = defaultdict(int)

    def declare(self, object_name: str, part: str) -> int:
        """The id of a part within its object's file; a new part gets the next."""
        known = self.parts[object_name]
        if part not in known:
            known.append(part)
        return known.index(part) + 1

    def add(self, image: PartImage) -> None:
        """Adds an image and its masks."""
        name = image.object_name
        number = self._append(
            name,
            "images",
            [
                {
                    "width": image.width,
                    "height": image.height,
                    "file_name": f"{name}/{image.file}",
                }
            ],
        )
        self._append(
            name,
            "annotations",
            [
                {
                    "image_id": number,
                    "category_id": self.declare(name, mask.part),
                    "segmentation": mask.segmentation,
                    "area": mask.area,
                    "bbox": mask.box,
                    "iscrowd": 0,
                }
                for mask in image.masks
            ],
        )

    def discard(self, object_name: str) -> None:
        """Forgets an object and its images."""
        self.parts.pop(object_name, None)
        for kind in _LISTS:
            self._spool(object_name, kind).unlink(missing_ok=True)

    def finish(self) -> None:
        """Puts the files together."""
        for name, parts in sorted(self.parts.items()):
            categories = [{"id": i, "name": part} for i, part in enumerate(parts, start=1)]
            with (self._folder / f"{name}.json").open("wb") as file:
                file.write(b'{"categories": ' + json.dumps(categories).encode())
                for kind in _LISTS:
                    file.write(f', "{kind}": ['.encode())
                    self._move(self._spool(name, kind), file)
                    file.write(b"]")
                file.write(b"}")

    def _spool(self, name: str, kind: str) -> Path:
        return self._folder / f".{name}.{kind}"

    def _append(self, name: str, kind: str, entries: list[dict[str, Any]]) -> int:
        """Writes entries behind those that are there; the id of the last."""
        with self._spool(name, kind).open("a", encoding="utf-8") as file:
            for entry in entries:
                if self._counts[name, kind]:
                    file.write(", ")
                self._counts[name, kind] += 1
                file.write(json.dumps({"id": self._counts[name, kind]} | entry))
        return self._counts[name, kind]

    @staticmethod
    def _move(spool: Path, file: BinaryIO) -> None:
        if spool.exists():
            with spool.open("rb") as entries:
                shutil.copyfileobj(entries, file)
            spool.unlink()


def write_pinpp(images: Iterable[PartImage], out: Path) -> None:
    """Writes `out/json/<object>.json` and an empty `out/including/`.

    An object has the parts that its images show. Ids start at 1 in every file.

    Args:
        images: annotated images.
        out: folder without `json/`.

    Raises:
        FileExistsError: if `out/json` exists.
    """
    writer = PinppWriter(out)
    (out / "including").mkdir()
    for image in images:
        writer.add(image)
    writer.finish()
