"""Makes labels from elsewhere a stage 2 run folder: COCO JSON, or a tree of 16-bit PNGs."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.errors import MissingInputError, UserError
from datamodules.files.process_map import work_through
from datamodules.imagenet_shards import ImageNetShardsDataModule
from datamodules.images.image_files import BadImageError, read_header
from datamodules.labels.coco_results import ResultReader, result_files
from datamodules.labels.label_set import provenance_hash, shard_path
from datamodules.labels.png import png_path
from datamodules.masks.part_labels import PartInstance
from pipeline.labelling.export_labels import Format
from pipeline.labelling.imported_shards import HINT, ShardImport, import_shard
from pipeline.labelling.provenance import LabelOrigin
from pipeline.runs.manifest import Manifest, mark_complete
from pipeline.runs.stage_outputs import PACKAGES


def import_labels(
    source: Path,
    out: Path,
    layout: Format,
    imagenet: Path,
    pinpp: Path,
    *,
    shard_size: int = 1000,
    images: Path | None = None,
    allow_missing: bool = False,
    workers: int = 1,
) -> int:
    """Writes a complete stage 2 run folder; shards that are there already are not made again.

    Args:
        source: folder with `json/<object>.json` (coco) or `seg/<object>/<stem>.png` (png). PNGs
            hold part ids of the vocabulary; a `vocabulary.json` beside them is compared. Or (coco)
            a segmenter's results: a JSON file, or a folder of such with `images`.
        out: run folder to make; an interrupted import goes on.
        layout: `coco` or `png`.
        imagenet: folder with `train/`.
        pinpp: annotation folder that defines the part vocabulary.
        shard_size: images per Parquet file.
        images: COCO file that numbers images and categories of results, see `ResultReader`.
        allow_missing: images without labels become rows without instances.
        workers: processes.

    Returns:
        Number of images whose labels were written now.

    Raises:
        MissingInputError: if a folder is missing.
        UserError: if labels do not fit images or vocabulary, naming file and value, or `out`
            holds other labels.
    """
    data = ImageNetShardsDataModule(imagenet, pinpp, shard_size=shard_size)
    vocabulary = data.vocabulary
    if source.is_file() or images is not None:
        results = result_files(source)
        numbering = [] if images is None else [images] if images.is_file() else result_files(images)
        files, found = _digest([*results, *numbering]), _results(source, images, layout, data)
    else:
        files, found = _source_files(source, layout, data, allow_missing), None
    settings = {"imported": layout, "source_sha256": files, "allow_missing": allow_missing}
    LabelOrigin(**data.provenance, settings=settings).claim(out)
    vocabulary.save(out / "vocabulary.json")
    Manifest(
        out.name,
        config={"import": {"source": str(source), "format": layout, "shard_size": shard_size}},
        inputs={"vocabulary": vocabulary.content_hash, "source": f"{source} sha256:{files}"},
        versions={package: version(package) for package in PACKAGES},
    ).write(out)
    tasks = [
        ShardImport(
            shard_path(out, shard),
            provenance_hash(out),
            tuple(zip(*data.shard(shard).to_pydict().values(), strict=True)),
            data.split,
            source,
            out / "vocabulary.json",
            layout,
            allow_missing,
            _of_shard(found, data.shard(shard)["key"].to_pylist()),
        )
        for shard in data.missing_shards(out)
    ]
    written = sum(work_through(import_shard, tasks, workers, "Importing shards"))
    mark_complete(out)
    return written


def _source_files(
    source: Path, layout: Format, data: ImageNetShardsDataModule, allow_missing: bool
) -> str:
    """Checks which labels are there; SHA-256 of their names, sizes and times."""
    pattern = {"coco": "json/[!.]*.json", "png": "seg/[!.]*/[!.]*.png"}[layout]
    files = sorted(source.glob(pattern))
    if not files:
        shown = pattern.replace("[!.]", "")
        raise MissingInputError(f"{source} holds no {shown}: set --source and --format")
    saved = source / "vocabulary.json"
    if layout == "png" and saved.is_file():
        theirs = PartVocabulary.load(saved)
        if theirs.content_hash != data.vocabulary.content_hash:
            raise UserError(
                f"{saved} numbers {theirs.num_parts} parts ({theirs.content_hash[:12]}), --pinpp "
                f"{data.vocabulary.num_parts} ({data.vocabulary.content_hash[:12]}): use the "
                "annotations that the labels were made with"
            )
    keys = data.images["key"].to_pylist()
    if layout == "png":
        _refuse_shared_maps(source, keys)
    wanted = {
        source / "json" / f"{key.split('/')[0]}.json" if layout == "coco" else png_path(source, key)
        for key in keys
    }
    if unknown := sorted(set(files) - wanted):
        raise UserError(
            f"{unknown[0]} and {len(unknown) - 1} more have no image in {data.split}: "
            "remove them or set --imagenet"
        )
    absent = sorted(wanted - set(files)) if layout == "coco" and not allow_missing else []
    if absent:
        raise UserError(f"{absent[0]} and {len(absent) - 1} more are missing: {HINT}")
    return _digest(files, source)


def _refuse_shared_maps(source: Path, keys: Sequence[str]) -> None:
    """Refuses a label map whose name is that of two images, as it may be of either."""
    owners: dict[Path, str] = {}
    for key in keys:
        path = png_path(source, key)
        if owners.setdefault(path, key) != key and path.is_file():
            raise UserError(
                f"{path} would be the label map of both {owners[path]} and {key}, as names count "
                "up to the first dot: rename one of the images, or import COCO JSON"
            )


def _results(
    source: Path, images: Path | None, layout: Format, data: ImageNetShardsDataModule
) -> dict[str, tuple[PartInstance, ...]]:
    """A segmenter's results by key of the training image."""
    if layout != "coco":
        raise UserError(f"{source}: results are read as --format coco, not {layout}")
    table = data.images.to_pydict()
    labels = dict(zip(table["key"], table["label"], strict=True))

    @lru_cache(maxsize=1024)
    def size_of(key: str) -> tuple[int, int] | None:
        try:
            return read_header(data.split / key).size
        except BadImageError:
            return None  # the row of a damaged image says so

    results = ResultReader(data.vocabulary, labels, size_of, images, max_score=1.0).read(source)
    if not results.named:
        raise UserError(
            f"{source} names no categories: pseudo labels need a part for every mask "
            "(category_id, category_name or category)"
        )
    return results.instances


def _of_shard(
    found: Mapping[str, tuple[PartInstance, ...]] | None, keys: Sequence[str]
) -> dict[str, tuple[PartInstance, ...]] | None:
    return None if found is None else {key: found[key] for key in keys if key in found}


def _digest(files: Sequence[Path], root: Path | None = None) -> str:
    """SHA-256 of names (below `root`), sizes and times."""
    digest = hashlib.sha256()
    for file in files:
        state = file.stat()
        name = file.relative_to(root) if root else file.name
        digest.update(f"{name} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def main(
    format: Format,
    source: Path,
    out: Path,
    imagenet: Path,
    pinpp: Path,
    shard_size: int = 1000,
    images: Path | None = None,
    allow_missing: bool = False,
    workers: int = os.cpu_count() or 1,
) -> None:
    """Makes labels from elsewhere a stage 2 run folder: COCO JSON, or a tree of 16-bit PNGs.

    A PNG has one instance per part id: a label map does not tell instances of a part apart.

    Args:
        format: layout of the files.
        source: folder with json/ or seg/, or a segmenter's results (coco).
        out: stage 2 run folder to make or to go on with.
        imagenet: folder with train/.
        pinpp: folder with json/, which defines the parts.
        shard_size: images per Parquet file.
        images: COCO file that numbers images and categories of results.
        allow_missing: images may have no labels.
        workers: processes.

    Raises:
        MissingInputError: if a folder is missing.
        UserError: if labels do not fit images or vocabulary, or `out` holds other labels.
    """
    count = import_labels(
        source,
        out,
        format,
        imagenet,
        pinpp,
        shard_size=shard_size,
        images=images,
        allow_missing=allow_missing,
        workers=workers,
    )
    print(f"{out} is complete; the labels of {count} images were written now")
