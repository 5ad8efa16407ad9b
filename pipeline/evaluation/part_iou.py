"""Part maps under attack: counts of every image in Parquet, mean IoU of them all."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.files.atomic_files import written_whole
from pipeline.evaluation.summaries import PartScores

# Cells of one image: that the truth gives a part, that a map does, that both do.
COLUMNS = ("truth", "clean", "clean_overlap", "adversarial", "adversarial_overlap")
PART_SCHEMA = pa.schema(
    [("key", pa.string()), ("part", pa.int32()), *((name, pa.int32()) for name in COLUMNS)]
)


def at_cells(truth: np.ndarray, cells: Sequence[int]) -> np.ndarray:
    """Part ids `(B, H, W)` at the centres of the cells of a smaller map, `cells` being (h, w)."""
    rows, columns = (
        (np.arange(number) * 2 + 1) * pixels // (2 * number)
        for number, pixels in zip(cells, truth.shape[1:], strict=True)
    )
    return truth[:, rows[:, None], columns]


def write_part_counts(
    path: Path,
    keys: Sequence[str],
    truth: np.ndarray,
    clean: np.ndarray,
    adversarial: np.ndarray,
) -> None:
    """Writes the counts of one unit, whole or not at all.

    The truth is looked up at the centres of the cells of the predicted maps.

    Args:
        path: Parquet file, rows as in `PART_SCHEMA`.
        keys: names of the images.
        truth: part ids `(B, H, W)`, 0 = background; -1 leaves an image out.
        clean: part ids `(B, h, w)` that the network gives the clean images.
        adversarial: part ids `(B, h, w)` that it gives the adversarial ones.
    """
    true_cells = at_cells(truth, clean.shape[1:])
    table: list[dict[str, object]] = []
    for key, true, *guesses in zip(keys, true_cells, clean, adversarial, strict=True):
        if true.min() < 0:
            continue
        size = 1 + max(int(ids.max()) for ids in (true, *guesses))
        maps = [true]
        for guess in guesses:
            maps += [guess, np.where(true == guess, true, 0)]
        counts = [np.bincount(ids.ravel(), minlength=size) for ids in maps]
        for part in np.flatnonzero(np.any(counts, axis=0)):
            if part:  # the background is no part
                cells = {n: int(count[part]) for n, count in zip(COLUMNS, counts, strict=True)}
                table.append({"key": key, "part": int(part), **cells})
        if not table or table[-1]["key"] != key:  # an image without any part is still counted
            table.append({"key": key, "part": 0, **dict.fromkeys(COLUMNS, 0)})
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        pq.write_table(pa.Table.from_pylist(table, schema=PART_SCHEMA), partial)


def part_scores(files: Sequence[Path]) -> PartScores | None:
    """Mean IoU over the parts that the truth shows, cells pooled over all images.

    Args:
        files: what `write_part_counts` wrote; files that do not exist held no annotated image.

    Returns:
        The scores, None without images or parts.
    """
    tables = [pq.read_table(file, schema=PART_SCHEMA) for file in files if file.is_file()]
    if not tables:
        return None
    table = pa.concat_tables(tables)
    part = table["part"].to_numpy()
    truth, clean, clean_both, adversarial, adversarial_both = (
        np.bincount(part, weights=table[name].to_numpy())[1:] for name in COLUMNS
    )
    shown = truth > 0
    if not shown.any():
        return None
    clean_miou, adversarial_miou = (
        float((both[shown] / (truth + predicted - both)[shown]).mean())
        for predicted, both in ((clean, clean_both), (adversarial, adversarial_both))
    )
    images = len(set(table["key"].to_pylist()))
    return PartScores(clean_miou, adversarial_miou, int(shown.sum()), images)
