"""Images a second of one loading process."""

import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.data_path import (
    JITTER,
    MIN_SCALE,
    SIZE,
    STRIDE,
    UsualImages,
    images_and_rows,
    microseconds,
    write_labels,
)
from benchmarks.gpu_check.results import Ratio
from benchmarks.gpu_check.scale import Setting
from datamodules.labels.composite_store import CompositeStore
from datamodules.labels.part_crops import PartSupervisedImages
from datamodules.part_shapes.part_shapes import render_part_shapes

QUALITY = 97  # of the JPEGs, so that files are about as large as ImageNet's


@contextmanager
def one_thread() -> Iterator[None]:
    """Threads that wait for others would count as processor time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure(setting: Setting) -> list[Ratio]:
    """Processor time of a training sample, on rendered images, on one thread as workers have."""
    scale = setting.scale
    with one_thread(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        each = -(-scale.samples // 10)
        root = render_part_shapes(
            folder / "shapes", train_per_object=each, annotated_per_object=each, val_per_object=0,
            size=128,
        )  # fmt: skip
        rows, vocabulary = images_and_rows(
            root, folder / "imagenet", scale.samples, scale.sample_pixels, QUALITY
        )
        write_labels(folder, rows, vocabulary)
        train = folder / "imagenet" / "train"
        usual = UsualImages(train, folder / "masks", [row.key for row in rows])
        store = CompositeStore(folder / "labels.arrow")
        ours = PartSupervisedImages(train, store, SIZE, STRIDE, MIN_SCALE, JITTER, 0)
        times = microseconds(
            {
                "theirs": lambda epoch, index: usual[epoch, index],
                "ours": lambda epoch, index: ours[epoch, index],
            },
            len(rows),
            scale.repetitions,
        )
    rates = {way: 1e6 / statistics.median(values) for way, values in times.items()}
    setting.loader_speed = rates["ours"]
    name = "data path, one process"
    return [Ratio(name, rates["theirs"], rates["ours"], "images/s", "all in the worker, PNG")]
