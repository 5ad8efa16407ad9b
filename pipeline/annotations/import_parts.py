"""`import_parts FORMAT ...`: part annotations of other data sets in the layout of every stage."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import auto_cli

from datamodules.annotations.object_rules import ObjectRules
from datamodules.annotations.panoptic_parts import CITYSCAPES_CLASSES, read_panoptic_parts
from datamodules.annotations.part_grouping import read_grouping
from datamodules.annotations.pascal_part import PASCAL_CLASSES, read_pascal_part
from datamodules.files.errors import MissingInputError, UserError, os_errors
from datamodules.files.names import printable
from datamodules.images.image_files import visible_folders
from pipeline.annotations.import_objects import (
    AnnotatedFile,
    ObjectSource,
    import_objects,
    print_summary,
    require_empty,
)
from pipeline.annotations.import_part_imagenet import part_imagenet
from pipeline.annotations.object_data_set import Split

IDS, IDS_ENDING = "gtFinePanopticParts", "_gtFinePanopticParts.tif"
IMAGES, IMAGES_ENDING = "leftImg8bit", "_leftImg8bit.png"


def pascal_part(
    source: Path,
    out: Path,
    objects: Literal["crop", "largest"] = "largest",
    grouping: str | None = None,
    images: Path | None = None,
    annotations: Path | None = None,
    train: Path | None = None,
    val: Path | None = None,
    margin: float = 0.1,
    square: bool = False,
    min_pixels: int = 1,
    max_other: float | None = None,
    copy: bool = False,
    workers: int | None = None,
) -> None:
    """Pascal-Part: MATLAB files of PASCAL VOC 2010's images.

    Args:
        source: folder of VOC with JPEGImages/, ImageSets/ and Annotations_Part/.
        out: new folder.
        objects: `largest` keeps images whole, with the parts of their largest object; `crop` makes
            every object an image.
        grouping: coarse parts: sitawarin, without_sides or a YAML file; by default all parts,
            without the numbers of their names.
        images: folder of the images, by default source/JPEGImages.
        annotations: folder of the .mat files, by default source/Annotations_Part.
        train: list of images, by default source/ImageSets/Main/train.txt.
        val: likewise; by default source/ImageSets/Main/val.txt unless `train` is given.
        margin: around a crop, as a share of the longer side of its object.
        square: widen crops to squares, as far as the image goes.
        min_pixels: smaller objects are left out.
        max_other: leave out objects in whose box other categories have more than this share of
            the object's pixels.
        copy: copy whole images instead of linking them.
        workers: processes, by default one a core.

    Raises:
        MissingInputError: if a list, image or annotation does not exist.
        UserError: if `out` holds something, or a file is damaged or does not fit.
    """
    rules = ObjectRules(objects, margin, square, min_pixels, max_other)
    require_empty(out)
    table = None if grouping is None else read_grouping(grouping, "pascal_part")
    lists: dict[Split, Path] = {"train": train or source / "ImageSets" / "Main" / "train.txt"}
    if val is not None or train is None:
        lists["val"] = val or source / "ImageSets" / "Main" / "val.txt"
    images, annotations = (
        images or source / "JPEGImages",
        annotations or source / "Annotations_Part",
    )
    owners: dict[str, Path] = {}
    files: dict[Split, list[AnnotatedFile]] = {}
    for split, path in lists.items():
        files[split] = []
        for name in _listed_images(path):
            if name in owners:
                raise UserError(f"{path}: {name} is listed twice, also in {owners[name]}: keep one")
            owners[name] = path
            files[split].append(
                AnnotatedFile(name, images / f"{name}.jpg", annotations / f"{name}.mat")
            )
    data = ObjectSource("pascal_part", source, files, read_pascal_part, PASCAL_CLASSES)
    summary = import_objects(data, out, rules, grouping=table, copy=copy, workers=workers)
    print_summary(summary, out)


def panoptic_parts(
    source: Path,
    out: Path,
    objects: Literal["crop", "largest"] = "crop",
    grouping: str | None = None,
    margin: float = 0.1,
    square: bool = False,
    min_pixels: int = 1000,
    max_other: float | None = 0.5,
    copy: bool = False,
    workers: int | None = None,
) -> None:
    """Cityscapes Panoptic Parts: TIFFs of ids beside Cityscapes' images.

    Args:
        source: folder with leftImg8bit/ and gtFinePanopticParts/, both with train/ and val/.
        out: new folder.
        objects: `crop` makes every object an image; `largest` keeps images whole, with the parts of
            their largest object.
        grouping: coarse categories: sitawarin (human, vehicle) or a YAML file.
        margin: around a crop, as a share of the longer side of its object.
        square: widen crops to squares, as far as the image goes.
        min_pixels: smaller objects are left out.
        max_other: leave out objects in whose box other categories have more than this share of
            the object's pixels; null keeps them.
        copy: copy whole images instead of linking them.
        workers: processes, by default one a core.

    Raises:
        MissingInputError: if a folder or image does not exist.
        UserError: if `out` holds something, or a file is damaged or does not fit.
    """
    rules = ObjectRules(objects, margin, square, min_pixels, max_other)
    require_empty(out)
    table = None if grouping is None else read_grouping(grouping, "panoptic_parts")
    files: dict[Split, list[AnnotatedFile]] = {"train": _street_scenes(source, "train")}
    if (source / IDS / "val").is_dir():
        files["val"] = _street_scenes(source, "val")
    data = ObjectSource("panoptic_parts", source, files, read_panoptic_parts, CITYSCAPES_CLASSES)
    summary = import_objects(data, out, rules, grouping=table, copy=copy, workers=workers)
    print_summary(summary, out)


FORMATS: list[Callable[..., Any] | type] = [pascal_part, panoptic_parts, part_imagenet]


@os_errors()
def main(args: Sequence[str]) -> None:
    """Imports part annotations of one of `FORMATS`.

    Args:
        args: name of the command, the format and its options.

    Raises:
        MissingInputError: if an input does not exist.
        UserError: if an input is damaged or does not fit, or the target holds something.
        SystemExit: status 2 after wrong usage, 0 after `--help`.
    """
    name, *rest = args
    auto_cli(FORMATS, args=rest, as_positional=False, prog=f"python -m pipeline {name}")


def _listed_images(path: Path) -> list[str]:
    """Names in a list of VOC: the first word of a line; some lists have a second, a label."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise MissingInputError(
            f"{printable(path)} does not exist: set SOURCE to the folder with ImageSets/, or give "
            "lists as --train and --val"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{printable(path)} is not UTF-8 text ({error.reason})") from None
    names = [line.split()[0] for line in lines if line.strip()]
    if not names:
        raise UserError(f"{printable(path)} lists no image")
    for name in names:
        if Path(name).name != name or Path(name).suffix in (".jpg", ".mat"):
            raise UserError(
                f"{printable(path)}: {name} is no name of an image: it must be like 2008_000008"
            )
    return names


def _street_scenes(source: Path, split: Split) -> list[AnnotatedFile]:
    folder = source / IDS / split
    if not folder.is_dir():
        raise MissingInputError(f"{printable(folder)} is not a folder: set SOURCE to the one above")
    found = []
    for city in visible_folders(folder):
        for path in sorted(city.glob(f"[!.]*{IDS_ENDING}")):
            name = path.name.removesuffix(IDS_ENDING)
            image = source / IMAGES / split / city.name / f"{name}{IMAGES_ENDING}"
            found.append(AnnotatedFile(name, image, path))
    if not found:
        raise MissingInputError(f"{printable(folder)} holds no CITY/*{IDS_ENDING}: set SOURCE")
    return found
