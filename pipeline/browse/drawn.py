"""What is kept of an image once it is drawn: pictures, answers, how well its masks agree."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from datamodules.files.errors import UserError
from datamodules.files.json_files import read_json, write_json

FOLDER = "images"
PICTURES = {
    "image": "image",
    "human": "human parts",
    "pseudo": "pseudo labels",
    "parts": "part map",
    "attacked": "under attack",
    "attacked_parts": "map under attack",
}
"""Pictures of an image in their order, and what stands above them."""


@dataclass(frozen=True)
class Drawn:
    """One image with its pictures, `images/ID.json`.

    Attributes:
        key: `object/file`.
        split: `evaluated` or `train`.
        clean: class that the model gives the image.
        attacked: class that it gives the picture under attack.
        labelled_by: `stage 2`, `this page` or nothing: who made the pseudo labels.
        iou: mean IoU in [0, 1] with the human parts, of `pseudo`, `parts` and `attacked_parts`;
            without those that were not compared.
        pictures: files by kind, see `PICTURES`, relative to the page.
        legend: names and colours of the parts; no colour stands for parts of other objects.
    """

    key: str
    split: str
    clean: str
    attacked: str
    labelled_by: str
    iou: dict[str, float]
    pictures: dict[str, str]
    legend: list[tuple[str, str]]

    @classmethod
    def find(cls, page: Path, split: str, key: str) -> Self | None:
        """What was kept of an image; None if it was not drawn, or a picture of it is gone.

        Args:
            page: folder of the page.
            split: of the image.
            key: of the image.

        Raises:
            UserError: if the file is damaged.
        """
        path = page / FOLDER / f"{image_id(split, key)}.json"
        if not path.is_file():
            return None
        remedy = "delete it, and the same command draws that image again"
        content: dict[str, Any] = read_json(path, remedy)
        try:
            content["legend"] = [(name, colour) for name, colour in content["legend"]]
            found = cls(**content)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error}): {remedy}") from None
        return found if all((page / file).is_file() for file in found.pictures.values()) else None

    def write(self, page: Path) -> None:
        """Writes the file below the folder of the page."""
        write_json(page / FOLDER / f"{image_id(self.split, self.key)}.json", asdict(self))


def image_id(split: str, key: str) -> str:
    """Name of an image's files: keys hold slashes, and two splits may have the same."""
    return hashlib.sha256(f"{split}/{key}".encode()).hexdigest()[:20]
