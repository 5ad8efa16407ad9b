"""The shards of a stage 2 run folder as one whole: which belong to it, and what their rows may say.

Every reader of labels comes through here, so that none measures or trains on a set that lacks
shards, holds those of another set, or has an image twice.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from datamodules.files.errors import MissingInputError, UserError
from datamodules.files.json_files import read_json
from datamodules.labels.pseudo_labels import (
    AGAIN,
    MAKE_ANEW,
    PROVENANCE,
    finished_shards,
    label_files,
    opened_shard,
    read_columns,
    read_shard,
)
from datamodules.masks.part_labels import ImageParts

RECORD = "_shards.json"


def shard_path(run: Path, shard: int) -> Path:
    """Where a stage 2 run folder keeps a shard: `labels/<shard>.parquet`."""
    return run / "labels" / f"{shard:05d}.parquet"


def provenance_hash(run: Path) -> str:
    """Hash of `labels/_shards.json`, which says what a run's labels were made from, or nothing."""
    path = run / "labels" / RECORD
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def refuse_strays(run: Path, images: int, shard_size: int) -> None:
    """Refuses Parquet files beside the shards of a run that are none of them.

    Args:
        run: stage 2 run folder.
        images: number of images that the run labels.
        shard_size: images of a shard.

    Raises:
        UserError: naming the file.
    """
    expected = {shard_path(run, shard) for shard in range(-(-images // shard_size))}
    if strays := [file for file in finished_shards(run) if file not in expected]:
        raise UserError(
            f"{strays[0]} is none of the {len(expected)} shards that {run / 'labels' / RECORD} "
            "tells of: remove it"
        )


def checked_shards(
    run: Path, objects: Sequence[str] | None = None, images: Collection[str] | None = None
) -> dict[Path, pa.Table]:
    """Keys and labels of all shards of a run, after making sure that they are one label set.

    Labels of other programs, and those of version 0.1, do not say what they were made from; then
    the rows alone are checked.

    Args:
        run: stage 2 run folder.
        objects: names of the object categories; when given, every row's label must be that of
            its image's folder.
        images: keys of the images that must have a row, each of them and no other; None takes
            any.

    Returns:
        Tables with the columns `key` and `label`, by file, in order.

    Raises:
        MissingInputError: if a shard is missing.
        UserError: if a shard is damaged, of another label set or no shard of this one, or a row
            is repeated, of an unknown image or of another category than its image.
    """
    files = label_files(run)
    lengths = _check_files(run, files)
    shards = {file: read_columns(file, "key", "label") for file in files}
    for file, table in shards.items():
        if len(table) != lengths.get(file, len(table)):
            raise UserError(
                f"{file} has {len(table)} rows, {run / 'labels' / RECORD} says {lengths[file]}: "
                f"{MAKE_ANEW}"
            )
    _check_rows(shards, objects, images)
    return shards


def read_labels(run: Path, objects: Sequence[str] | None = None) -> list[ImageParts]:
    """All labels of a stage 2 run folder, sorted by key.

    Args:
        run: stage 2 run folder.
        objects: see `checked_shards`.

    Raises:
        MissingInputError: if there are no labels or a shard is missing.
        UserError: if the shards are not one sound label set, see `checked_shards`.
    """
    rows = [row for file in checked_shards(run, objects) for row in read_shard(file)]
    return sorted(rows, key=lambda row: row.key)


def _check_files(run: Path, files: Sequence[Path]) -> dict[Path, int]:
    """Number of rows that each shard must have, where the run says so."""
    record = run / "labels" / RECORD
    origins = {file: _origin(file) for file in files}
    known = [origin for origin in origins.values() if origin]
    if not record.is_file():
        if known:
            raise MissingInputError(
                f"{record} is missing, which {files[0]} was written with: restore it, or delete "
                f"{record.parent} and {AGAIN}"
            )
        return {}
    content = read_json(record, f"restore it, or delete {record.parent} and {AGAIN}")
    total, size = content.get("images"), content.get("shard_size")
    if type(total) is not int or type(size) is not int or total < 1 or size < 1:
        raise UserError(
            f"{record} is damaged (no images or shard_size): restore it, or delete "
            f"{record.parent} and {AGAIN}"
        )
    refuse_strays(run, total, size)
    lengths = {
        shard_path(run, number): min(size, total - start)
        for number, start in enumerate(range(0, total, size))
    }
    if absent := sorted(lengths.keys() - set(files)):
        raise MissingInputError(
            f"{absent[0]} is missing, as are {len(absent) - 1} more of the {len(lengths)} shards "
            f"that {record} tells of: {AGAIN}"
        )
    # Before version 0.2 shards did not say it: then none does.
    expected = provenance_hash(run) if known else ""
    for file, origin in origins.items():
        if origin != expected:
            raise UserError(
                f"{file} is of another label set than {record} (other weights, settings or "
                f"images): {MAKE_ANEW}"
            )
    return lengths


def _origin(file: Path) -> str:
    with opened_shard(file) as shard:
        return (shard.schema_arrow.metadata or {}).get(PROVENANCE, b"").decode(errors="replace")


def _check_rows(
    shards: Mapping[Path, pa.Table],
    objects: Sequence[str] | None,
    images: Collection[str] | None,
) -> None:
    label_of = None if objects is None else {name: label for label, name in enumerate(objects)}
    shard_of: dict[str, Path] = {}
    for file, table in shards.items():
        keys, labels = table["key"].to_pylist(), table["label"].to_pylist()
        if len(set(keys)) < len(keys) or not shard_of.keys().isdisjoint(keys):
            _name_repeated(file, keys, shard_of)
        for key, label in zip(keys, labels, strict=True):
            if key is None or label is None:
                raise UserError(f"{file} has a row without key or label: {MAKE_ANEW}")
            if images is not None and key not in images:
                raise UserError(
                    f"{file} has a row for {key}, which is no training image: restore the image, "
                    f"or delete {file.parent} and {AGAIN}"
                )
            folder = key.partition("/")[0]
            if label_of is not None and label_of.get(folder) != label:
                raise UserError(
                    f"{file} gives {key} label {label}, the category {folder} has "
                    f"{label_of.get(folder, 'none')}: {MAKE_ANEW}"
                )
        shard_of.update(dict.fromkeys(keys, file))
    if images is not None and (unlabelled := set(images) - shard_of.keys()):
        folder = next(iter(shards)).parent
        raise UserError(
            f"{folder} has no row for {min(unlabelled)} and {len(unlabelled) - 1} more training "
            f"images: the images have changed since, delete {folder} and {AGAIN}"
        )


def _name_repeated(file: Path, keys: Sequence[str], shard_of: Mapping[str, Path]) -> None:
    """Raises the error about an image that has two rows."""
    counts = Counter(keys)
    key = next(key for key in keys if key in shard_of or counts[key] > 1)
    where = f"one in {shard_of[key]}" if key in shard_of else "another there"
    raise UserError(
        f"{key} has a row in {file} and {where}: delete the file that is the copy and {AGAIN}, "
        "which makes what is missing"
    )
