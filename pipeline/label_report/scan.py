"""One pass over the shards of a stage 2 run; memory does not grow with the number of images."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.errors import UserError
from datamodules.labels.label_set import checked_shards
from datamodules.labels.pseudo_labels import from_table, label_batches
from datamodules.masks.part_labels import ImageParts
from pipeline.label_report.compare import LabelComparison

ROWS = 512  # read at a time
SCORE_BINS = 20
MAX_PARTS = 100  # images with more parts are counted with these
KEPT_EMPTY = 3  # examples per object category
KEPT_ERRORS = 200


@dataclass
class LabelTotals:
    """Counts over all rows.

    Attributes:
        images, labelled, errors: rows by object category, int64 (C,): all, with a part of the
            report's least score, with an error.
        instances: kept parts by part id, int64 (K + 1).
        all_instances: parts of any score.
        scores: parts by score, int64 (SCORE_BINS), equal bins of [0, 1].
        parts_per_image: rows by number of kept parts, int64 (MAX_PARTS + 1).
        labelled_at: rows with a part of each threshold's score, int64 (T,).
        empty: a few readable images without a part, by object category.
        failures: a few (key, what is wrong).
        seen: compared keys.
    """

    images: np.ndarray
    labelled: np.ndarray
    errors: np.ndarray
    instances: np.ndarray
    labelled_at: np.ndarray
    all_instances: int = 0
    scores: np.ndarray = field(default_factory=lambda: np.zeros(SCORE_BINS, np.int64))
    parts_per_image: np.ndarray = field(default_factory=lambda: np.zeros(MAX_PARTS + 1, np.int64))
    empty: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    failures: list[tuple[str, str]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, vocabulary: PartVocabulary, thresholds: Sequence[float]) -> "LabelTotals":
        """Zeros of the vocabulary's sizes."""
        objects = len(vocabulary.objects)
        sizes = objects, objects, objects, vocabulary.num_parts + 1, len(thresholds)
        images, labelled, errors, instances, at = (np.zeros(size, np.int64) for size in sizes)
        return cls(images, labelled, errors, instances, at)


def shards_of(run: Path, vocabulary: PartVocabulary) -> tuple[list[Path], int]:
    """The shards of a run and their number of rows.

    Raises:
        MissingInputError: if there are none, or one is missing.
        UserError: if they are not one sound label set, see `checked_shards`.
    """
    shards = checked_shards(run, vocabulary.objects)
    return list(shards), sum(map(len, shards.values()))


def scan_labels(
    files: Sequence[Path],
    truth: Mapping[str, ImageParts],
    comparison: LabelComparison,
    listing: TextIO | None = None,
    advance: Callable[[int], None] = lambda rows: None,
) -> LabelTotals:
    """Counts all rows and compares those that people annotated.

    Args:
        files: shards, as `shards_of` found them sound.
        truth: human annotations by key; only these rows are decoded.
        comparison: takes the annotated rows.
        listing: when given, every image without labels is written to it, one a line:
            key, `empty` or `error`, what is wrong, separated by tabs.
        advance: told the number of rows read, for a progress bar.

    Returns:
        The counts.

    Raises:
        UserError: if a shard is damaged or of another vocabulary.
    """
    vocabulary, thresholds = comparison.vocabulary, comparison.thresholds
    totals = LabelTotals.of(vocabulary, thresholds)
    keys = pa.array(list(truth), pa.string())
    for shard, file in enumerate(files):
        for table in label_batches(file, ROWS):
            _count(table, file, comparison, totals, listing)
            for row in from_table(table.filter(pc.is_in(table["key"], value_set=keys))):
                totals.seen.add(row.key)
                problem = comparison.add(row, truth[row.key], shard)
                if problem and not row.error:
                    _fail(totals, listing, row.key, problem)
            advance(len(table))
    return totals


def read_rows(files: Sequence[Path], keys: Sequence[str]) -> dict[str, ImageParts]:
    """Reads a few rows again, by key, from the shards that hold them."""
    wanted = pa.array(list(keys), pa.string())
    rows: dict[str, ImageParts] = {}
    for file in files:
        for table in label_batches(file, ROWS):
            found = table.filter(pc.is_in(table["key"], value_set=wanted))
            rows.update((row.key, row) for row in from_table(found))
    return rows


def _count(
    table: pa.Table,
    file: Path,
    comparison: LabelComparison,
    totals: LabelTotals,
    listing: TextIO | None,
) -> None:
    labels = table["label"].to_numpy()
    failed = pc.not_equal(pc.fill_null(table["error"], ""), "").to_numpy()
    nested = table["instances"].combine_chunks()
    nested = nested.combine_chunks() if isinstance(nested, pa.ChunkedArray) else nested
    rows = np.repeat(
        np.arange(len(table)),
        pc.fill_null(pc.list_value_length(nested), 0).to_numpy(zero_copy_only=False),
    )
    flat = nested.flatten()
    scores = pc.struct_field(flat, "score").to_numpy(zero_copy_only=False).astype(np.float64)
    parts = pc.struct_field(flat, "part").to_numpy(zero_copy_only=False)
    num_objects, num_ids = len(totals.images), len(totals.instances)
    if labels.max(initial=0) >= num_objects or parts.max(initial=0) >= num_ids:
        raise UserError(
            f"{file} has an object or part that its vocabulary.json does not know: labels and "
            "vocabulary are of different runs"
        )
    kept = scores >= comparison.thresholds[comparison.chosen]
    per_image = np.bincount(rows[kept], minlength=len(table))
    best = np.full(len(table), -1.0)
    np.maximum.at(best, rows, scores)
    has_parts = (per_image > 0) & ~failed
    totals.images += np.bincount(labels, minlength=num_objects)
    totals.labelled += np.bincount(labels[has_parts], minlength=num_objects)
    totals.errors += np.bincount(labels[failed], minlength=num_objects)
    totals.instances += np.bincount(parts[kept], minlength=num_ids)
    totals.all_instances += len(scores)
    totals.scores += np.histogram(scores, SCORE_BINS, (0, 1))[0]
    totals.parts_per_image += np.bincount(per_image.clip(0, MAX_PARTS), minlength=MAX_PARTS + 1)
    totals.labelled_at += (best[~failed, None] >= np.array(comparison.thresholds)).sum(axis=0)
    for index in np.flatnonzero(~has_parts):
        key, label = table["key"][index].as_py(), int(labels[index])
        if failed[index]:
            _fail(totals, listing, key, table["error"][index].as_py())
            continue
        if len(totals.empty[label]) < KEPT_EMPTY:
            totals.empty[label].append(key)
        if listing is not None:
            listing.write(f"{key}\tempty\t\n")


def _fail(totals: LabelTotals, listing: TextIO | None, key: str, problem: str) -> None:
    if len(totals.failures) < KEPT_ERRORS:
        totals.failures.append((key, problem))
    if listing is not None:
        listing.write(f"{key}\terror\t{' '.join(problem.split())}\n")
