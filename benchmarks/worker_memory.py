"""Memory that loading processes of stage 3 take for names and part labels, as their number grows.

Each process draws from its share of a permutation of all images, as those of a training do, and
then says what it holds: the proportional set size (PSS), in which a page that n processes share
counts for 1/n in each, less what it was before the first image. Theirs, after the authors' loader,
looks names and labels up in Python lists: reading an object changes its reference count, so that
a forked process copies the page that it lies in. Ours are read from the mapped file of the store,
with the runs of the part labels, whose pages belong to the page cache.
No image is decoded: what that takes is the same at any number of images. Linux only.

    python benchmarks/worker_memory.py [--images 1281167] [--workers 4 64]
"""

import argparse
import json
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from datamodules.labels.composite_store import CompositeStore, composite_batch, write_batches
from datamodules.masks.part_labels import ImageParts

CLASSES, ROWS = 1000, 1024  # of ImageNet; of a batch
Look = Callable[[int], object]


def batches(images: int) -> Iterator[pa.RecordBatch]:
    """Rows named like those of ImageNet, all of the size of most, without parts."""
    first = composite_batch([ImageParts(name(0), 0, 375, 500, ())], ())
    row = first.to_pylist()[0]
    for start in range(0, images, ROWS):
        numbers = range(start, min(start + ROWS, images))
        rows = [row | {"key": name(n), "label": n % CLASSES} for n in numbers]
        yield pa.RecordBatch.from_pylist(rows, first.schema)


def name(number: int) -> str:
    """Key of an image."""
    return f"n{number % CLASSES:08d}/n{number % CLASSES:08d}_{number}.JPEG"


def proportional_bytes() -> int:
    """PSS of this process."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/smaps_rollup gives no Pss: this needs Linux 4.14 or newer")


def work(look: Look, positions: np.ndarray, pipe: Connection) -> None:
    """Looks images up; tells its PSS before and after, when all others have done so, too."""
    for wanted in (positions[:0], positions):
        for position in wanted.tolist():
            look(position)
        pipe.send(None)
        pipe.recv()
        pipe.send(proportional_bytes())
        pipe.recv()


def growth(look: Look, images: int, workers: int) -> float:
    """Bytes by which all workers together grow while they see every image once."""
    context = multiprocessing.get_context("fork")
    order = np.random.default_rng(0).permutation(images)
    pipes, processes = [], []
    for rank in range(workers):
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(look, order[rank::workers], theirs))
        process.start()
        pipes.append(ours)
        processes.append(process)
    totals = []
    for _ in range(2):
        for message in (False, True):
            found = [pipe.recv() for pipe in pipes]
            if message:
                totals.append(sum(found))
            for pipe in pipes:
                pipe.send(None)
    for process in processes:
        process.join()
    return float(totals[1] - totals[0])


def main() -> None:
    """Prints the table and, last, the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_281_167)
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 64])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.arrow"
        write_batches(path, batches(given.images))
        size = path.stat().st_size
        store = CompositeStore(path)
        len(store)  # opens it, as stage 3 does before its workers start
        ours = {w: growth(lambda i: (store.image(i), store.runs(i)), given.images, w)
                for w in given.workers}  # fmt: skip
        names, labels = map(list, zip(*store.images(), strict=True))
        theirs = {
            w: growth(lambda i: (names[i], labels[i]), given.images, w) for w in given.workers
        }
    table = Table(title=f"{given.images:,} images, store of {size / 1e6:.0f} MB")
    for column in ("workers", "theirs, MB together", "ours, MB together", "ours, MB each"):
        table.add_column(column, justify="right")
    for w in given.workers:
        figures = (theirs[w] / 1e6, ours[w] / 1e6, ours[w] / w / 1e6)
        table.add_row(str(w), *(f"{figure:.1f}" for figure in figures))
    Console().print(table)
    print(
        json.dumps(
            {
                "images": given.images,
                "store_mb": round(size / 1e6),
                "theirs_mb": {w: round(theirs[w] / 1e6) for w in given.workers},
                "ours_mb": {w: round(ours[w] / 1e6) for w in given.workers},
            }
        )
    )


if __name__ == "__main__":
    main()
