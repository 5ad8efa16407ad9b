"""Exports the labels of a stage 2 run folder as COCO JSON or as a tree of 16-bit PNGs."""

import hashlib
import json
import os
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.files.atomic_files import folder_written_whole, write_text
from datamodules.files.errors import MissingInputError, UserError
from datamodules.files.json_files import write_json
from datamodules.files.process_map import work_through
from datamodules.labels.coco import relations, to_coco
from datamodules.labels.label_set import checked_shards
from datamodules.labels.png import png_path, write_png
from datamodules.labels.pseudo_labels import read_shard
from datamodules.masks.part_labels import ImageParts
from datamodules.masks.part_masks import composite
from pipeline.runs.manifest import Manifest, require_complete, sha256
from pipeline.runs.refuse_mixing import refuse_mixing
from pipeline.runs.stages import LABELS

Format = Literal["coco", "png"]


@dataclass(frozen=True)
class CategoryExport:
    """One object category to export, the unit of work.

    Attributes:
        label: the object category.
        shards: label files that hold its images.
        human: human annotations that replace labels, by key.
        vocabulary: file with the part vocabulary.
        out: folder to write to.
        layout: `coco` or `png`.
        min_score: weaker instances are left out.
    """

    label: int
    shards: tuple[Path, ...]
    human: dict[str, ImageParts]
    vocabulary: Path
    out: Path
    layout: Format
    min_score: float

    def rows(self) -> list[ImageParts]:
        """The category's labels, without images that stage 2 could not read."""
        rows = [row for shard in self.shards for row in read_shard(shard, self.label)]
        return [
            self.human.get(row.key) or row.confident(self.min_score)
            for row in rows
            if not row.error
        ]


def export_labels(
    labels: Path,
    out: Path,
    layout: Format,
    *,
    imagenet: Path | None = None,
    pinpp: Path | None = None,
    min_score: float = 0.0,
    workers: int = 1,
) -> int:
    """Writes all labels of a run; categories that are there already are not written again.

    Args:
        labels: stage 2 run folder.
        out: folder to make; an interrupted export goes on.
        layout: `coco` writes `json/<object>.json` and `including/<object>.txt`, `png` writes
            `seg/<object>/<stem>.png` and `whether_pseudo/<object>.txt`, lines `path 0|1`.
        imagenet: when given, `img` (PNG only) becomes a link to its `train/`.
        pinpp: when given, human annotations replace the labels of their images.
        min_score: weaker instances are left out.
        workers: processes.

    Returns:
        Number of images whose labels were written now.

    Raises:
        MissingInputError: if the run or a folder is missing.
        UserError: if the run is not complete or damaged, or `out` holds other labels.
    """
    require_complete(labels, LABELS.target)
    if imagenet is not None and not (imagenet / "train").is_dir():
        raise MissingInputError(f"{imagenet / 'train'} is not a folder: set --imagenet")
    vocabulary = PartVocabulary.load(labels / "vocabulary.json")
    human: dict[int, dict[str, ImageParts]] = defaultdict(dict)
    for row in read_annotations(pinpp, vocabulary) if pinpp else ():
        human[row.label][row.key] = row
    shards: dict[int, list[Path]] = defaultdict(list)
    for file, rows in checked_shards(labels, vocabulary.objects).items():
        for label in rows["label"].unique().to_pylist():
            shards[label].append(file)
    record, remedy = out / "export.json", f"give another --out, or delete {out}"
    origin = _provenance(labels, layout, pinpp, min_score)
    write_json(record, refuse_mixing(record, origin, remedy, out.glob("*")))
    _write_surroundings(out, layout, vocabulary, imagenet)
    tasks = [
        CategoryExport(
            label,
            tuple(shards[label]),
            human[label],
            out / "vocabulary.json",
            out,
            layout,
            min_score,
        )
        for label in sorted(shards)
        if not _finished(out, layout, vocabulary.objects[label]).is_file()
    ]
    return sum(work_through(export_category, tasks, workers, "Exporting categories"))


def export_category(task: CategoryExport) -> int:
    """Writes one category whole or not at all; returns its number of images."""
    vocabulary = _vocabulary(task.vocabulary)
    rows = task.rows()
    name = vocabulary.objects[task.label]
    finished = _finished(task.out, task.layout, name)
    if task.layout == "coco":
        write_text(finished, json.dumps(to_coco(rows, task.label, vocabulary)))
        return len(rows)
    with folder_written_whole(task.out / "seg" / name) as partial:
        for row in rows:
            path = partial / png_path(task.out, row.key).name
            if path.exists():
                raise UserError(f"{row.key}: another image of {name} has the PNG name {path.name}")
            write_png(path, composite(row, vocabulary.inclusions))
    lines = [f"{row.key} {int(row.key not in task.human)}\n" for row in rows]
    write_text(finished, "".join(lines))
    return len(rows)


@lru_cache(maxsize=1)
def _vocabulary(path: Path) -> PartVocabulary:
    return PartVocabulary.load(path)


def _finished(out: Path, layout: Format, name: str) -> Path:
    """The file of a category that is written last."""
    folders = {"coco": out / "json" / f"{name}.json", "png": out / "whether_pseudo" / f"{name}.txt"}
    return folders[layout]


def _provenance(
    labels: Path, layout: Format, pinpp: Path | None, min_score: float
) -> dict[str, Any]:
    shards = [
        f"{name} {digest}"
        for name, digest in sorted(Manifest.read(labels).outputs.items())
        if name.endswith(".parquet") or name == "vocabulary.json"
    ]
    files = sorted((pinpp / "json").glob("[!.]*.json")) if pinpp else []
    human = [f"{file.name} {sha256(file)}" for file in files]
    return {
        "format": layout,
        "labels_sha256": hashlib.sha256("\n".join(shards).encode()).hexdigest(),
        "human_sha256": hashlib.sha256("\n".join(human).encode()).hexdigest() if pinpp else None,
        "min_score": min_score,
    }


def _write_surroundings(
    out: Path, layout: Format, vocabulary: PartVocabulary, imagenet: Path | None
) -> None:
    vocabulary.save(out / "vocabulary.json")
    for name in ("json", "including") if layout == "coco" else ("seg", "whether_pseudo"):
        (out / name).mkdir(exist_ok=True)
    if layout == "coco":
        for name, lines in relations(vocabulary).items():
            write_text(out / "including" / f"{name}.txt", lines)
    elif imagenet is not None and not (out / "img").exists():
        (out / "img").symlink_to((imagenet / "train").resolve(), target_is_directory=True)


def main(
    labels: Path,
    format: Format,
    out: Path,
    imagenet: Path | None = None,
    pinpp: Path | None = None,
    min_score: float = 0.0,
    workers: int = os.cpu_count() or 1,
) -> None:
    """Exports the labels of a stage 2 run folder as COCO JSON or as a tree of 16-bit PNGs.

    Args:
        labels: run folder of stage 2.
        format: layout of the files.
        out: folder to make or to go on with.
        imagenet: PNG alone: link img to its train/.
        pinpp: human annotations, which replace the labels of their images.
        min_score: leave out weaker instances.
        workers: processes.

    Raises:
        MissingInputError: if the run or a folder is missing.
        UserError: if the run is not complete or damaged, or `out` holds other labels.
    """
    count = export_labels(
        labels,
        out,
        format,
        imagenet=imagenet,
        pinpp=pinpp,
        min_score=min_score,
        workers=workers,
    )
    print(f"{out} is complete; the labels of {count} images were written now")
