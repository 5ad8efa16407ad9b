"""Makes images with several annotated objects a data set that every stage reads."""

import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pycocotools import mask as coco_mask

from datamodules.annotations.object_parts import AnnotatedObject, encode_within
from datamodules.annotations.object_rules import ChosenObject, Dropped, ObjectRules
from datamodules.annotations.part_grouping import PartGrouping
from datamodules.annotations.part_imagenet import PartImage, PartMask
from datamodules.files.errors import MissingInputError, UserError
from datamodules.files.json_files import write_json
from datamodules.files.names import printable
from datamodules.files.process_map import work_through
from datamodules.images.image_files import read_image, read_size
from pipeline.annotations.object_data_set import (
    FOLDERS,
    ImportedImage,
    ObjectDataSet,
    Split,
    by_reason,
)

ObjectReader = Callable[[Path, int, int], list[AnnotatedObject]]
"""Reads the annotation of an image of a height and a width."""


class AnnotatedFile(NamedTuple):
    """An image and its annotation; `name` is what the images made of it are called after."""

    name: str
    image: Path
    annotation: Path


@dataclass(frozen=True)
class ObjectSource:
    """A data set of images with several objects.

    Attributes:
        annotation_format: its name, such as `pascal_part`.
        folder: where it lies.
        files: by split.
        read: reader of one annotation, importable by its name.
        classes: categories that annotations can name.
    """

    annotation_format: str
    folder: Path
    files: Mapping[Split, Sequence[AnnotatedFile]]
    read: ObjectReader
    classes: frozenset[str]


class ImageTask(NamedTuple):
    """One image to import into `out`, a split folder such as `imagenet/train`."""

    file: AnnotatedFile
    split: Split
    out: Path
    read: ObjectReader
    rules: ObjectRules
    grouping: PartGrouping | None
    copy: bool


def import_image(task: ImageTask) -> ImportedImage:
    """Writes the images that become of one image.

    Crops are PNGs, which keep every pixel; a whole image is linked or copied as it is.

    Raises:
        MissingInputError: if image or annotation does not exist.
        UserError: if one of them cannot be read or they do not fit.
    """
    height, width = read_size(task.file.image)
    objects = task.read(task.file.annotation, height, width)
    chosen, dropped = task.rules.choose(objects, height, width, task.grouping)
    pixels = read_image(task.file.image) if chosen and task.rules.objects == "crop" else None
    images = []
    for one in chosen:
        folder = task.out / one.found.name
        folder.mkdir(parents=True, exist_ok=True)
        if pixels is None:
            target = folder / f"{task.file.name}{task.file.image.suffix}"
            _place(task.file.image, target, task.copy)
        else:
            target = folder / f"{task.file.name}_{one.found.number}.png"
            pixels.crop(one.window).save(target)
        images.append(_part_image(one, target.name, task.file.annotation))
    return ImportedImage(task.split, images, len(objects), dropped)


def import_objects(
    source: ObjectSource,
    out: Path,
    rules: ObjectRules,
    *,
    grouping: PartGrouping | None = None,
    copy: bool = False,
    workers: int | None = None,
) -> dict[str, Any]:
    """Writes `imagenet/{train,val}`, `pinpp/{json,including}`, `val_parts/json`, `import.json`.

    `out` appears when all is written.

    Args:
        source: what to import.
        out: folder that must not exist or be empty.
        rules: which objects become images.
        grouping: coarse categories and parts; None keeps those of the annotations.
        copy: copy whole images instead of linking them.
        workers: processes; None takes one a core.

    Returns:
        What `import.json` holds: counts, `dropped` by reason and name, the settings.

    Raises:
        MissingInputError: if an image or annotation does not exist.
        UserError: if `out` holds something, a file is damaged, or nothing is left to write.
    """
    require_empty(out)
    if grouping is not None:
        grouping.require_classes(source.classes)
    _require_files(source)
    parent = out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=parent) as scratch:
        staged = Path(scratch) / out.name
        tasks = [
            ImageTask(file, split, staged / "imagenet" / split, source.read, rules, grouping, copy)
            for split, files in source.files.items()
            for file in files
        ]
        workers = workers or len(os.sched_getaffinity(0))
        data = ObjectDataSet(staged, source.files)
        with closing(work_through(import_image, tasks, workers, "Importing")) as imported:
            for one in imported:
                data.add(one)
        if not data.categories["train"]:
            raise UserError(
                f"no image of train is left of {data.objects} objects; left out: "
                f"{_listed(data.dropped)}"
            )
        data.finish()
        summary = {
            "format": source.annotation_format,
            "source": str(source.folder),
            "rules": asdict(rules),
            "grouping": None if grouping is None else _table(grouping),
        } | data.counts()
        write_json(staged / "import.json", summary)
        staged.rename(out)
    return summary


def require_empty(out: Path) -> None:
    """Refuses a target that holds something.

    Raises:
        UserError: naming it.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder: give another one or remove it")


def print_summary(summary: dict[str, Any], out: Path) -> None:
    """Prints what was written, what was left out and how to go on."""
    images = ", ".join(f"{number:,} {split}" for split, number in summary["images"].items())
    print(
        f"{out}: {len(summary['parts'])} objects, {sum(map(len, summary['parts'].values()))} part "
        f"categories; images: {images}"
    )
    for reason, names in summary["dropped"].items():
        listed = ", ".join(f"{name} {number:,}" for name, number in names.items())
        print(f"left out, {reason}: {sum(names.values()):,} ({listed})")
    print(f"all of it in {out / 'import.json'}; go on with")
    folders = {"IMAGENET": out / "imagenet", "PINPP": out / FOLDERS["train"]}
    if summary["images"].get("val"):
        folders["PINPP_VAL"] = out / FOLDERS["val"]
    variables = (f"{name}={shlex.quote(str(path))}" for name, path in folders.items())
    print(f"make stage1-segmenter {' '.join(variables)}")


def _require_files(source: ObjectSource) -> None:
    for files in source.files.values():
        for file in files:
            for path, what in ((file.image, "image"), (file.annotation, "annotation")):
                if not path.is_file():
                    raise MissingInputError(
                        f"{what} {printable(path)} of {file.name} does not exist: add it or take "
                        f"{file.name} out of the list or folder that names it"
                    )


def _place(image: Path, target: Path, copy: bool) -> None:
    if copy:
        shutil.copyfile(image, target)
    else:
        os.symlink(image.resolve(), target)


def _part_image(one: ChosenObject, file: str, annotation: Path) -> PartImage:
    size = [one.window.height, one.window.width]
    masks = []
    for name, mask in one.found.parts:
        if not mask.any():
            continue
        counts = encode_within(mask, one.found.box, one.window)
        rle = {"size": size, "counts": counts}
        box, area = coco_mask.toBbox(rle).tolist(), int(coco_mask.area(rle))
        written = {"size": size, "counts": counts.decode()}
        masks.append(PartMask(name, "", written, box, area))
    return PartImage(one.found.name, file, size[0], size[1], tuple(masks), annotation)


def _table(grouping: PartGrouping) -> dict[str, Any]:
    return {
        name: {"classes": group.classes, "parts": {part: p.pattern for part, p in group.parts}}
        for name, group in grouping.objects.items()
    }


def _listed(dropped: Dropped) -> str:
    numbers = {reason: sum(names.values()) for reason, names in by_reason(dropped).items()}
    return ", ".join(f"{reason} {number}" for reason, number in numbers.items()) or "nothing"
