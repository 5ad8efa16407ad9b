"""Reader of Tiny-ImageNet's folder."""

from dataclasses import dataclass
from pathlib import Path

from datamodules.files.errors import MissingInputError, UserError
from datamodules.images.image_files import is_image, visible_folders


@dataclass(frozen=True)
class TinyImageNet:
    """Files of Tiny-ImageNet by category (WNID).

    Attributes:
        train: training images of each category, sorted.
        val: validation images of each category, sorted.
    """

    train: dict[str, list[Path]]
    val: dict[str, list[Path]]

    @classmethod
    def read(cls, root: Path) -> "TinyImageNet":
        """Lists `tiny-imagenet-200/` as published, or sorted into `val/<WNID>/`.

        Args:
            root: holds `train/<WNID>/[images/]` and `val/images/` with `val/val_annotations.txt`,
                a line for each image: name, WNID, box.

        Raises:
            MissingInputError: if a folder or a listed image is missing or empty.
            UserError: if `val_annotations.txt` is malformed.
        """
        train = _by_folder(root / "train")
        annotations = root / "val" / "val_annotations.txt"
        if not annotations.is_file():
            return cls(train, _by_folder(root / "val"))
        val: dict[str, list[Path]] = {name: [] for name in train}
        lines = annotations.read_text(encoding="utf-8-sig").splitlines()
        for number, line in enumerate(lines, start=1):
            name, _, rest = line.partition("\t")
            category = rest.split("\t")[0]
            if category not in val:
                raise UserError(f"{annotations}: line {number} names no category of train/")
            path = root / "val" / "images" / name
            if not path.is_file():
                raise MissingInputError(f"{annotations}: line {number}: {path} does not exist")
            val[category].append(path)
        return cls(train, {name: sorted(paths) for name, paths in val.items()})


def _by_folder(split: Path) -> dict[str, list[Path]]:
    if not split.is_dir():
        raise MissingInputError(f"{split} is not a folder: --tiny must hold train/ and val/")
    found = {}
    for folder in visible_folders(split):
        inner = folder / "images"
        files = (inner if inner.is_dir() else folder).iterdir()
        found[folder.name] = sorted(p for p in files if is_image(p.name))
    empty = [name for name, files in found.items() if not files]
    if not found or empty:
        raise MissingInputError(f"{split / (empty or ['<WNID>'])[0]} holds no images")
    return found
