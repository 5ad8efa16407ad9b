"""Builds T-PIN++, Tiny-ImageNet's categories at original resolution (PartImageNet++, Tab. S7)."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

from datamodules.annotations.pinpp_subset import link_annotations
from datamodules.files.errors import MissingInputError, UserError
from datamodules.files.json_files import write_json
from datamodules.files.process_map import work_through
from datamodules.images.image_files import is_image
from datamodules.images.image_matching import find_origins
from datamodules.images.imagenet_folder import require_class_folders
from datamodules.images.tiny_imagenet import TinyImageNet

MATCHING = 1  # raise it when matches come out differently


class CategoryTask(NamedTuple):
    """The copies of one category, its photographs and the file for what was found."""

    copies: list[Path]
    photographs: list[Path]
    found: Path


def match_category(task: CategoryTask) -> dict[str, Any]:
    """Matches one category, or reads what an earlier run found for the same files.

    Returns:
        `copies`, the fields of `Match` by the name of the copy, and `files`, a hash of all names
        and sizes.
    """
    copies, photographs, found = task
    listing = [[path.name, path.stat().st_size] for path in [*copies, *photographs]]
    files = hashlib.sha256(json.dumps([MATCHING, listing]).encode()).hexdigest()
    if found.is_file() and (earlier := json.loads(found.read_text()))["files"] == files:
        return earlier
    matches = find_origins(copies, photographs)
    result = {"files": files, "copies": {name: asdict(match) for name, match in matches.items()}}
    write_json(found, result)
    return result


def build_t_pinpp(
    imagenet: Path,
    tiny: Path,
    out: Path,
    *,
    pinpp: Path | None = None,
    train: Literal["all", "tiny"] = "tiny",
    max_unmatched: float = 0.01,
    workers: int = 1,
) -> dict[str, Any]:
    """Lays out links to ImageNet's images of Tiny-ImageNet's categories.

    Tiny-ImageNet's validation images are copies of ImageNet's training images under other names.
    They are found by content and left out of training, with their duplicates. Writes
    `imagenet/{train,val}/<WNID>/`, `pinpp/{json,including}/`, `matches/<WNID>.json` and
    `report.json`, what this function returns. `out` appears when all is done; until then
    `.<out>.partial` beside it keeps the matches for the next run.

    Args:
        imagenet: folder with `train/` and `val/`.
        tiny: folder of Tiny-ImageNet.
        out: folder that must not exist.
        pinpp: annotations; those of images that are left out of training are left out too.
        train: `tiny` keeps the images that Tiny-ImageNet's training images are copies of, which
            is the paper's set (Appendix K.2); `all` keeps all but those of its validation images.
        max_unmatched: largest share of validation images for which no origin may be found.
        workers: processes.

    Raises:
        MissingInputError: if a folder or image is missing.
        UserError: if `out` exists, an image cannot be decoded or too many have no origin.
    """
    sources = TinyImageNet.read(tiny)
    names = list(sources.train)
    photographs = {split: _photographs(imagenet / split, names) for split in ("train", "val")}
    partial = _begun(out)
    tasks = [
        CategoryTask(
            [*sources.val.get(name, []), *(sources.train[name] if train == "tiny" else [])],
            photographs["train"][name],
            partial / "matches" / f"{name}.json",
        )
        for name in names
    ]
    found = dict(zip(names, work_through(match_category, tasks, workers, "Matching"), strict=True))
    excluded: dict[str, dict[str, Any]] = {}
    unmatched = []
    for name, paths in sources.val.items():
        for path in paths:
            match = found[name]["copies"][path.name]
            if not match["origins"]:
                unmatched.append({"tiny_val": f"{name}/{path.name}"} | match)
            for rank, origin in enumerate(match["origins"]):
                why = "duplicate of the origin of" if rank else "origin of"
                entry = {"why": f"{why} Tiny-ImageNet val {path.name}"} | match
                excluded.setdefault(f"{name}/{origin}", entry)
    total = sum(map(len, sources.val.values()))
    report = {
        "imagenet": str(imagenet),
        "tiny": str(tiny),
        "train": train,
        "categories": len(names),
        "tiny_val_images": total,
        "matched": total - len(unmatched),
        "unmatched": unmatched,
        "excluded": excluded,
    }
    if len(unmatched) > max_unmatched * total:
        write_json(partial / "report.json", report)
        raise UserError(
            f"{len(unmatched)} of {total} val images of {tiny} have no origin in "
            f"{imagenet / 'train'}, see {partial / 'report.json'}: complete the folder or allow "
            "more with --max_unmatched"
        )
    lost = []
    for name in names:
        kept = {path.name for path in photographs["train"][name]}
        if train == "tiny":
            copies = found[name]["copies"]
            origins = {path.name: copies[path.name]["origins"] for path in sources.train[name]}
            lost += [copy for copy, shown in origins.items() if not shown]
            kept &= set(chain.from_iterable(origins.values()))
        kept -= {key.split("/")[1] for key in excluded if key.startswith(f"{name}/")}
        chosen = [path for path in photographs["train"][name] if path.name in kept]
        _link(chosen, partial / "imagenet" / "train" / name)
        _link(photographs["val"][name], partial / "imagenet" / "val" / name)
    report["train_unmatched"] = lost
    report["images"] = _counts(partial / "imagenet")
    report |= link_annotations(pinpp, names, partial, masks=True) if pinpp else {}
    write_json(partial / "report.json", report)
    partial.rename(out)
    return report


def build_original(tiny: Path, out: Path, *, pinpp: Path | None = None) -> dict[str, Any]:
    """Lays Tiny-ImageNet itself, 64 pixels, out as ImageNet: links by category.

    Args:
        tiny: folder of Tiny-ImageNet.
        out: folder that must not exist; gets `imagenet/{train,val}/<WNID>/` and `report.json`.
        pinpp: annotations; their parts and relations go to `out/pinpp`, but no masks, as those fit
            the original resolution only: stage 2 labels these images.

    Returns:
        The report: counts of images and annotation files.

    Raises:
        MissingInputError: if a folder or image is missing.
        UserError: if `out` exists.
    """
    sources = TinyImageNet.read(tiny)
    partial = _begun(out)
    for split, by_category in (("train", sources.train), ("val", sources.val)):
        for name, paths in by_category.items():
            _link(paths, partial / "imagenet" / split / name)
    report: dict[str, Any] = {"tiny": str(tiny), "categories": len(sources.train)}
    report["images"] = _counts(partial / "imagenet")
    report |= link_annotations(pinpp, [*sources.train], partial, masks=False) if pinpp else {}
    write_json(partial / "report.json", report)
    partial.rename(out)
    return report


def _begun(out: Path) -> Path:
    """The folder to build in, with what an earlier run matched and nothing else."""
    if out.exists():
        raise UserError(f"{out} exists: give another folder or remove it")
    partial = out.absolute().parent / f".{out.name}.partial"
    partial.mkdir(parents=True, exist_ok=True)
    for name in ("imagenet", "pinpp"):
        shutil.rmtree(partial / name, ignore_errors=True)
    return partial


def _photographs(split: Path, names: Sequence[str]) -> dict[str, list[Path]]:
    found = {}
    for name in names:
        files = (split / name).iterdir() if (split / name).is_dir() else ()
        found[name] = sorted(path for path in files if is_image(path.name))
        if not found[name]:
            require_class_folders(split)
            raise MissingInputError(f"{split / name} has no image, but is in Tiny-ImageNet")
    return found


def _link(files: Iterable[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for path in files:
        os.symlink(path.resolve(), folder / path.name)


def _counts(imagenet: Path) -> dict[str, int]:
    return {split: len(list((imagenet / split).glob("*/*"))) for split in ("train", "val")}


def main(
    tiny: Path,
    out: Path,
    imagenet: Path | None = None,
    pinpp: Path | None = None,
    original: bool = False,
    train: Literal["all", "tiny"] = "tiny",
    max_unmatched: float = 0.01,
    workers: int = os.cpu_count() or 1,
) -> None:
    """Builds T-PIN++, Tiny-ImageNet's categories at ImageNet's resolution (Table S7).

    Args:
        tiny: folder tiny-imagenet-200.
        out: new folder.
        imagenet: folder with train/ and val/; needed unless `original` is set.
        pinpp: folder with json/ and including/.
        original: lay out Tiny-ImageNet itself, 64 pixels.
        train: images to keep, those of Tiny-ImageNet's train (the paper's) or all but its val's.
        max_unmatched: share of val images that may have no origin.
        workers: processes.

    Raises:
        MissingInputError: if a folder or image is missing.
        UserError: if `out` exists, an image cannot be decoded or too many have no origin.
    """
    if original:
        report = build_original(tiny, out, pinpp=pinpp)
    elif imagenet is None:
        raise UserError("set --imagenet, or --original=true for the 64-pixel images")
    else:
        report = build_t_pinpp(
            imagenet,
            tiny,
            out,
            pinpp=pinpp,
            train=train,
            max_unmatched=max_unmatched,
            workers=workers,
        )
    images = report["images"]
    print(
        f"{out}: {report['categories']} categories, {images['train']} train and "
        f"{images['val']} val images"
    )
    if not original:
        print(
            f"{report['matched']} of {report['tiny_val_images']} Tiny-ImageNet val images found, "
            f"{len(report['excluded'])} train images left out; all in {out / 'report.json'}"
        )
        if lost := report["train_unmatched"]:
            print(f"{len(lost)} Tiny-ImageNet train images have no origin, so theirs are missing")
