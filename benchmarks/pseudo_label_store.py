"""Part labels on disk: Parquet and the composite store against a tree of 16-bit PNGs.

The rows are the masks of real photographs where `../shared/data/parts_mini` is beside the project,
else of rendered figures, scaled to the 500 pixels of most ImageNet photographs, every copy turned
by half a turn or not and moved by some pixels, so that all differ.
Reading is that of stage 3: the 28x28 labels of a random crop, mirrored half of the time. The PNG
path decodes the file and looks the 784 points up, which is cheaper than the authors' resizing of
the crop.

python benchmarks/pseudo_label_store.py [--rows 100000] [--long-side 500] [--folder FOLDER]
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from part_label_rows import SHARD, base_rows, enlarged, varied
from PIL import Image
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.labels.composite_store import CompositeStore, write_composites
from datamodules.labels.part_crops import random_crop
from datamodules.labels.png import write_png
from datamodules.labels.pseudo_labels import from_table, read_shard
from datamodules.masks.part_labels import ImageParts
from datamodules.masks.part_masks import composite
from pipeline.labelling.shard_writer import write_shard

SIZE, STRIDE = 224, 8
Crop = tuple[np.ndarray, np.ndarray]


def random_point_grid(rng: np.random.Generator, height: int, width: int) -> Crop:
    """Rows and columns of a crop's 28x28 supervised cells, as stage 3 takes them."""
    top, left, h, w = random_crop(rng, height, width, 0.08)
    cells = np.arange(0, SIZE, STRIDE)
    columns = SIZE - 1 - cells if rng.random() < 0.5 else cells
    return (
        top + ((cells + 0.5) * h / SIZE).astype(np.int64),
        left + ((columns + 0.5) * w / SIZE).astype(np.int64),
    )


class Stores:
    """The three forms of the same labels in one folder.

    Args:
        folder: where they lie.
        png_rows: the first so many rows have a PNG.
        vocabulary: for the inclusion relations.
    """

    def __init__(self, folder: Path, png_rows: int, vocabulary: PartVocabulary) -> None:
        self.folder = folder
        self.png_rows = png_rows
        self.vocabulary = vocabulary
        self.composites = CompositeStore(folder / "composite.arrow")
        self.keys: list[str] = []

    def write(self, rows: Iterator[ImageParts], count: int) -> dict[str, float]:
        """Writes all forms; seconds per row of each.

        Both forms of the composite include painting it.
        """
        seconds = dict.fromkeys(("parquet", "composite", "png"), 0.0)
        columns = (*Progress.get_default_columns()[:-1], TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns) as progress:
            task = progress.add_task("Writing", total=count)
            for number in range(-(-count // SHARD)):
                some = list(islice(rows, SHARD))
                started = time.perf_counter()
                write_shard(self.folder / "labels" / f"{number:05d}.parquet", some)
                seconds["parquet"] += time.perf_counter() - started
                for row in some:
                    if len(self.keys) < self.png_rows:
                        path = self.png(row.key)
                        path.parent.mkdir(parents=True, exist_ok=True)
                        started = time.perf_counter()
                        write_png(path, composite(row, self.vocabulary.inclusions))
                        seconds["png"] += time.perf_counter() - started
                    self.keys.append(row.key)
                progress.advance(task, len(some))
            task = progress.add_task("Deriving composites", total=count)
            shards = sorted((self.folder / "labels").glob("*.parquet"))
            spent = 0.0

            def read() -> Iterator[ImageParts]:
                nonlocal spent
                for shard in shards:
                    started = time.perf_counter()
                    some = read_shard(shard)
                    spent += time.perf_counter() - started
                    yield from some
                    progress.advance(task, len(some))

            started = time.perf_counter()
            write_composites(self.composites.path, read(), self.vocabulary.inclusions)
            seconds["composite"] = time.perf_counter() - started - spent
        return {
            name: value / (self.png_rows if name == "png" else count)
            for name, value in seconds.items()
        }

    def png(self, key: str) -> Path:
        """Label map of a row."""
        return self.folder / "seg" / f"{key.split('.')[0]}.png"

    def read_png(self, index: int, crop: Crop) -> np.ndarray:
        """Decodes the whole map, then looks up the points."""
        with Image.open(self.png(self.keys[index])) as image:
            return np.asarray(image)[crop[0][:, None], crop[1]]

    def read_composite(self, index: int, crop: Crop) -> np.ndarray:
        """Unpacks the runs, then looks up the points."""
        return self.composites.runs(index).at(*crop)

    def read_parquet(self, index: int, crop: Crop) -> np.ndarray:
        """Reads the row's shard, decodes and paints its instances, then looks up the points."""
        shard, row = divmod(index, SHARD)
        with pq.ParquetFile(self.folder / "labels" / f"{shard:05d}.parquet") as file:
            parts = from_table(file.read().slice(row, 1))[0]
        return composite(parts, self.vocabulary.inclusions)[crop[0][:, None], crop[1]]


def timed(
    read: Callable[[int, Crop], np.ndarray], items: list[tuple[int, Crop]]
) -> tuple[float, list[np.ndarray]]:
    """Seconds per item, and what was read."""
    started = time.perf_counter()
    found = [read(index, crop) for index, crop in items]
    return (time.perf_counter() - started) / len(items), found


def main() -> None:
    """Prints a table and, as the last line, the ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--png-rows", type=int, default=20_000, help="rows that get a PNG")
    parser.add_argument("--long-side", type=int, default=500, help="in pixels, 0: as the masks are")
    parser.add_argument("--reads", type=int, default=2000, help="random reads of a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="for the stores, default a temporary one")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        bases, vocabulary, source = base_rows(folder)
        if given.long_side:
            bases = [enlarged(row, given.long_side) for row in bases]
        png_rows = min(given.png_rows, given.rows)
        stores = Stores(folder, png_rows, vocabulary)
        write = stores.write(varied(bases, given.rows, rng), given.rows)
        files = {
            "parquet": list((folder / "labels").glob("*.parquet")),
            "composite": [stores.composites.path],
            "png": list((folder / "seg").glob("*/*.png")),
        }
        size = {
            form: sum(path.stat().st_size for path in paths)
            / (png_rows if form == "png" else given.rows)
            for form, paths in files.items()
        }
        times: dict[str, list[float]] = {form: [] for form in files}
        pixels: list[int] = []
        equal = True
        for _ in range(given.rounds):
            items = []
            for index in rng.integers(0, png_rows, given.reads).tolist():
                runs = stores.composites.runs(index)
                items.append((index, random_point_grid(rng, runs.height, runs.width)))
                pixels.append(runs.height * runs.width)
            seconds, expected = timed(stores.read_png, items)
            times["png"].append(seconds)
            seconds, found = timed(stores.read_composite, items)
            times["composite"].append(seconds)
            equal &= all(map(np.array_equal, found, expected))
            few = items[: max(1, given.reads // 100)]
            seconds, found = timed(stores.read_parquet, few)
            times["parquet"].append(seconds)
            equal &= all(map(np.array_equal, found, expected))
        shutil.rmtree(folder / "seg")
    read = {form: statistics.median(values) for form, values in times.items()}
    table = Table(
        title=f"{given.rows} rows of {source}, {np.mean(pixels):.0f} pixels on average; "
        f"{png_rows} of them as PNG; {given.rounds} x {given.reads} random reads, medians"
    )
    for column in ("", "bytes/image", "rows written/s", "28x28 crops read/s", "us/crop"):
        table.add_column(column, justify="right" if column else "left")
    titles = {"parquet": "instance Parquet", "composite": "composite store", "png": "16-bit PNG"}
    for form, title in titles.items():
        table.add_row(
            title,
            f"{size[form]:.0f}",
            f"{1 / write[form]:.0f}",
            f"{1 / read[form]:.0f}",
            f"{read[form] * 1e6:.1f}",
        )
    Console(width=110).print(table)
    print(
        json.dumps(
            {
                "read_time_ratio": round(read["png"] / read["composite"], 2),
                "bytes_ratio": round(size["composite"] / size["png"], 3),
                "labels_equal": bool(equal),
                "rows": given.rows,
                "png_rows": png_rows,
                "bytes_per_image": {form: round(value) for form, value in size.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
