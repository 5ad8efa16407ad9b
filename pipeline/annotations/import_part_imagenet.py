"""Makes PartImageNet's own COCO files a data set that every stage reads."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich.progress import track

from datamodules.annotations.part_imagenet import (
    PartImage,
    group_by_super_category,
    read_part_imagenet,
    super_categories,
)
from datamodules.annotations.pinpp_writer import write_pinpp
from datamodules.files.errors import MissingInputError, UserError
from datamodules.files.json_files import write_json
from datamodules.images.image_files import is_image
from datamodules.images.imagenet_folder import require_class_folders
from pipeline.annotations.import_objects import require_empty
from pipeline.runs.manifest import sha256

SHOWN_PROBLEMS = 5


def import_part_imagenet(
    sources: Sequence[Path],
    out: Path,
    *,
    val: Sequence[Path] = (),
    naming: Literal["object", "super"] = "object",
    imagenet: Path | None = None,
) -> dict[str, Any]:
    """Converts COCO files of PartImageNet into the PIN++ layout.

    Writes `pinpp/json/<object>.json`, an empty `pinpp/including/`, `import.json` (what this
    function returns) and, when `val` is given, `split.json`. With `imagenet`, it also writes
    `imagenet/{train,val}/<object>/`, links to all images of the objects: a data set whose objects
    are the annotated ones, by `naming="super"` the super-categories.

    Args:
        sources: COCO files.
        out: folder that must not exist or be empty.
        val: COCO files whose images `split.json` puts into val; the others are train.
        naming: objects are the WNIDs (`object`) or the super-categories (`super`).
        imagenet: folder with `train/`; when given, images that it lacks are left out.

    Returns:
        Counts, `problems` (one line for each thing left out), `super_categories` by WNID and the
        hashes of the sources.

    Raises:
        MissingInputError: if a source or `imagenet/train` does not exist.
        UserError: if a source is damaged, `out` holds something, or nothing is left to write.
    """
    if imagenet is not None and not (imagenet / "train").is_dir():
        raise MissingInputError(f"{imagenet / 'train'} is not a folder: set --imagenet")
    require_empty(out)
    images, problems = read_part_imagenet([*sources, *val])
    if imagenet is not None:
        train = imagenet / "train"
        there = {id(i) for i in images if (train / i.object_name / i.file).is_file()}
        missing = [f"{i.object_name}/{i.file}" for i in images if id(i) not in there]
        problems += [f"{key}: no such image in {train}" for key in missing]
        images = [image for image in images if id(image) in there]
    groups = super_categories(images)
    if naming == "super":
        images, strays = group_by_super_category(images)
        problems += strays
    if not images:
        raise UserError(f"nothing to import; the first problem: {(problems or ['no image'])[0]}")
    summary = {
        "naming": naming,
        "objects": len({image.object_name for image in images}),
        "parts": len({(image.object_name, mask.part) for image in images for mask in image.masks}),
        "images": len(images),
        "masks": sum(len(image.masks) for image in images),
        "super_categories": groups,
        "sources": {str(path): sha256(path) for path in [*sources, *val]},
        "problems": problems,
    }
    parent = out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=parent) as scratch:
        staged = Path(scratch) / out.name
        write_pinpp(images, staged / "pinpp")
        if val:
            write_json(staged / "split.json", _split(images, set(val)))
        if imagenet is not None:
            objects = {name: group if naming == "super" else name for name, group in groups.items()}
            _link_images(imagenet, objects, staged / "imagenet")
        write_json(staged / "import.json", summary)
        staged.rename(out)
    return summary


def _split(images: Sequence[PartImage], held_out: set[Path]) -> dict[str, list[str]]:
    split: dict[str, list[str]] = {"train": [], "val": []}
    for image in images:
        part = "val" if image.source in held_out else "train"
        split[part].append(f"{image.object_name}/{image.file}")
    return split


def _link_images(imagenet: Path, groups: dict[str, str], out: Path) -> None:
    """Links all images of the given object categories below the objects that they become."""
    for split in ("train", "val"):
        require_class_folders(imagenet / split)
        for name, group in track(groups.items(), f"Linking {split}", transient=True):
            folder = (imagenet / split / name).resolve()
            if not folder.is_dir():
                continue
            target = out / split / group
            target.mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.iterdir()):
                if not is_image(path.name):
                    continue
                try:
                    os.symlink(path, target / path.name)
                except FileExistsError:
                    raise UserError(
                        f"{path}: another image of {group} has this name: rename one"
                    ) from None


def part_imagenet(
    source: Path | list[Path],
    out: Path,
    val: Path | list[Path] | None = None,
    naming: Literal["object", "super"] = "object",
    imagenet: Path | None = None,
) -> None:
    """PartImageNet: COCO files of ImageNet's images.

    Args:
        source: COCO files, such as `[train.json,val.json]`, or a folder of them.
        out: new folder.
        val: more COCO files, whose images `split.json` puts into val.
        naming: objects are the WNIDs (object) or the super-categories (super).
        imagenet: folder with train/; images that it lacks are left out, the others linked.

    Raises:
        MissingInputError: if a source or `imagenet/train` does not exist.
        UserError: if a source is damaged, `out` holds something, or nothing is left to write.
    """
    given = [source] if isinstance(source, Path) else source
    held_out = [val] if isinstance(val, Path) else val or []
    sources = [file for path in given for file in _coco_files(path) if file not in held_out]
    summary = import_part_imagenet(sources, out, val=held_out, naming=naming, imagenet=imagenet)
    problems = summary["problems"]
    print(
        f"{out}: {summary['objects']} objects, {summary['parts']} part categories, "
        f"{summary['images']} images, {summary['masks']} masks"
    )
    if problems:
        print(f"{len(problems)} problems, all of them in {out / 'import.json'}:")
    for line in problems[:SHOWN_PROBLEMS]:
        print(f"  {line}")


def _coco_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("[!.]*.json"))
    if not files:
        raise MissingInputError(f"{path} holds no COCO files (*.json): set SOURCE")
    return files
