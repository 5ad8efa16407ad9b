"""Cross-validation: every image without part annotations is a test image once."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.files.atomic_files import write_text
from datamodules.files.errors import UserError
from datamodules.images.image_lists import format_image_list
from datamodules.images.imagenet_folder import list_images


@dataclass(frozen=True)
class Folds:
    """Train and val images as one, and which of them each fold tests on.

    Attributes:
        imagenet: folder whose `train/` and `val/` are the same: links to all images.
        held_out: a list of images for each fold, `path label` lines.
    """

    imagenet: Path
    held_out: tuple[Path, ...]


def make_folds(imagenet: Path, pinpp: Path, folder: Path, count: int) -> Folds:
    """Splits all images without part annotations into folds that are alike in their categories.

    Annotated images are trained on in every fold: the segmenter has seen their parts, so nothing
    is tested on images that it knew.

    Args:
        imagenet: folder with `train/` and `val/`.
        pinpp: folder with the annotations.
        folder: gets `imagenet/` and the lists; may hold those of an earlier call.
        count: number of folds, 2 or more.

    Raises:
        UserError: if there are fewer folds than 2 or a category has fewer images than folds, a
            file name occurs in both splits, or `folder` was made from other images.
    """
    if count < 2:
        raise UserError(f"cross-validation needs 2 folds or more, not {count}")
    vocabulary = PartVocabulary.from_pinpp(pinpp, imagenet)
    annotated = {row.key for row in read_annotations(pinpp, vocabulary)}
    tested: list[list[tuple[str, int]]] = [[] for _ in range(count)]
    sources: dict[str, Path] = {}
    by_label: dict[int, list[str]] = {}
    for split in ("train", "val"):
        for key, label in list_images(imagenet / split):
            if key in sources:
                raise UserError(f"{key} is in train/ and in val/ of {imagenet}: rename one")
            sources[key] = (imagenet / split / key).resolve()
            if key not in annotated:
                by_label.setdefault(label, []).append(key)
    for label, name in enumerate(vocabulary.objects):
        keys = sorted(by_label.get(label, ()), key=_place)
        if len(keys) < count:
            raise UserError(
                f"{name} has {len(keys)} images without part annotations, fewer than {count} folds"
            )
        for key in keys:
            min(tested, key=len).append((key, label))
    pool = folder / "imagenet"
    linked = {f"{link.parent.name}/{link.name}" for link in pool.glob("train/*/*")}
    if gone := sorted(linked - sources.keys()):
        raise UserError(
            f"{pool / 'train' / gone[0]} is no image of {imagenet} now: remove {folder}"
        )
    for key, source in sources.items():
        link = pool / "train" / key
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source)
    if not (pool / "val").is_symlink():
        (pool / "val").symlink_to("train")
    lists = []
    for number, images in enumerate(tested):
        file = folder / f"fold{number}.txt"
        write_text(file, format_image_list(sorted(images)))
        lists.append(file)
    return Folds(pool, tuple(lists))


def _place(key: str) -> bytes:
    """Where an image stands in an order that is random and always the same."""
    return hashlib.sha256(key.encode()).digest()
