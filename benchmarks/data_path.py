"""Worker time of a training sample of stage 3 against the usual way.

The usual way, written afresh after the description of the authors' loader, does all in the worker:
decode the image, random resized crop (bicubic), the same crop of the 16-bit PNG mask (nearest),
flip, colour jitter, both to tensors, normalise. It does without their copies of the random state.
Ours is the real data set: uint8 crop, labels from run lengths; the device jitters and normalises.
Both take the same crops. The images are the photographs of `../shared/data/parts_mini` where they
lie beside the project, else PartShapes, enlarged to the 500x375 pixels of most of ImageNet and
compressed to files of about the size of ImageNet's.
Times are those of one thread on the CPU, so that other processes hardly matter; files come from
the page cache.

    python benchmarks/data_path.py
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from part_label_rows import PHOTOGRAPHS, enlarged
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision.transforms import ColorJitter
from torchvision.transforms import functional as TF

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.images.device_augmentation import MEAN, augment
from datamodules.images.resized_store import ResizedStore, Settings
from datamodules.labels.composite_store import CompositeStore, write_composites
from datamodules.labels.part_crops import PartSupervisedImages, random_crop
from datamodules.labels.png import write_png
from datamodules.masks.part_labels import ImageParts
from datamodules.masks.part_masks import composite
from datamodules.part_shapes.part_shapes import render_part_shapes
from pipeline.annotations.resize_images import resize_images

SIZE, STRIDE, MIN_SCALE, JITTER = 224, 8, 0.08, 0.1
STD = (0.229, 0.224, 0.225)


class UsualImages:
    """All in the worker, from a JPEG and a 16-bit PNG."""

    def __init__(self, images: Path, masks: Path, keys: list[str]) -> None:
        self.images = images
        self.masks = masks
        self.keys = keys
        self.jitter = ColorJitter(JITTER, JITTER, JITTER)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = item
        rng = np.random.default_rng((0, epoch, index))
        key = self.keys[index]
        with Image.open(self.images / key) as file:
            image = file.convert("RGB")
        with Image.open((self.masks / key).with_suffix(".png")) as file:
            mask = file.copy()
        top, left, height, width = random_crop(rng, image.height, image.width, MIN_SCALE)
        box = (left, top, left + width, top + height)
        image = image.crop(box).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        mask = mask.crop(box).resize((SIZE, SIZE), Image.Resampling.NEAREST)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = TF.normalize(TF.to_tensor(self.jitter(image)), MEAN, STD)
        return pixels, torch.from_numpy(np.array(mask, np.float32))


def images_and_rows(
    root: Path, folder: Path, count: int, pixels: int, quality: int
) -> tuple[list[ImageParts], PartVocabulary]:
    """Writes `folder/train/` with annotated images of `root`, enlarged, and gives their labels."""
    vocabulary = PartVocabulary.from_pinpp(root / "pinpp", root / "imagenet")
    rows = [row for row in read_annotations(root / "pinpp", vocabulary) if row.instances]
    chosen = []
    for row in rows[:: max(1, len(rows) // count)][:count]:
        aspect = max(row.height, row.width) / min(row.height, row.width)
        row = enlarged(row, round(math.sqrt(pixels * aspect)))
        target = folder / "train" / row.key
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(root / "imagenet" / "train" / row.key) as file:
            image = file.convert("RGB").resize((row.width, row.height), Image.Resampling.BICUBIC)
        image.save(target, "JPEG", quality=quality)
        chosen.append(row)
    return chosen, vocabulary


def write_labels(folder: Path, rows: list[ImageParts], vocabulary: PartVocabulary) -> None:
    """Writes the labels for both ways: `folder/masks/` of PNGs and `folder/labels.arrow`."""
    for row in rows:
        target = (folder / "masks" / row.key).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_png(target, composite(row, vocabulary.inclusions))
    write_composites(folder / "labels.arrow", rows, vocabulary.inclusions)


def microseconds(
    ways: dict[str, Callable[[int, int], object]], images: int, repetitions: int
) -> dict[str, list[float]]:
    """Mean CPU time of each way over the images, a repetition each; ways take turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for epoch in range(-1, repetitions):  # the first warms up
        for name, way in ways.items():
            started = time.process_time_ns()
            for index in range(images):
                way(max(epoch, 0), index)
            if epoch >= 0:
                times[name].append((time.process_time_ns() - started) / images / 1e3)
    return times


def decode(path: Path) -> None:
    """The floor: nothing but the image."""
    with Image.open(path) as image:
        image.load()


def main() -> None:
    """Prints the table and, last, the ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--pixels", type=int, default=500 * 375, help="of an image")
    parser.add_argument("--quality", type=int, default=97, help="of the JPEGs")
    parser.add_argument("--repetitions", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root, source = PHOTOGRAPHS, "parts_mini"
        if not root.is_dir():
            root, source = render_part_shapes(folder / "shapes", size=320), "PartShapes"
        rows, vocabulary = images_and_rows(
            root, folder / "imagenet", given.images, given.pixels, given.quality
        )
        write_labels(folder, rows, vocabulary)
        resize_images(folder / "imagenet", folder / "resized", Settings(), workers=1)
        report(folder, rows, source, given.repetitions)


def report(folder: Path, rows: list[ImageParts], source: str, repetitions: int) -> None:
    """Times the ways and prints."""
    store, train = CompositeStore(folder / "labels.arrow"), folder / "imagenet" / "train"
    copies = ResizedStore(folder / "resized")
    common = (store, SIZE, STRIDE, MIN_SCALE, JITTER, 0)
    usual = UsualImages(train, folder / "masks", [row.key for row in rows])
    ours = PartSupervisedImages(train, *common)
    pillow = PartSupervisedImages(train, *common, resampling="pillow")
    small = PartSupervisedImages(copies.images, *common, resized_side=copies.side)
    for index in range(len(rows)):
        labels = [data[0, index]["part_labels"] for data in (ours, small)]
        wanted = usual[0, index][1][::STRIDE, ::STRIDE]
        assert all(torch.equal(wanted, found.float()) for found in labels), rows[index].key
    times = microseconds(
        {
            "usual": lambda epoch, index: usual[epoch, index],
            "ours": lambda epoch, index: ours[epoch, index],
            "ours, resized store": lambda epoch, index: small[epoch, index],
            "ours, resized by Pillow": lambda epoch, index: pillow[epoch, index],
            "decoding alone": lambda _, index: decode(train / rows[index].key),
            "decoding alone, resized store": lambda _, i: decode(copies.images / rows[i].key),
        },
        len(rows),
        repetitions,
    )
    batch = torch.utils.data.default_collate([ours[0, i % len(rows)] for i in range(64)])
    device = microseconds({"augment": lambda *_: augment(batch)}, 3, repetitions)["augment"]
    median = {name: statistics.median(values) for name, values in times.items()}
    ratio = {
        name: statistics.median(
            theirs / mine for theirs, mine in zip(times["usual"], values, strict=True)
        )
        for name, values in times.items()
    }
    pixels = statistics.mean(row.height * row.width for row in rows)
    kilobytes = statistics.mean((train / row.key).stat().st_size for row in rows) / 1e3
    title = f"{len(rows)} images of {source}, {pixels / 1e3:.0f} k pixels, {kilobytes:.0f} kB"
    table = Table("worker", "CPU us a sample", "usual / this", title=title)
    for way, value in median.items():
        table.add_row(way, f"{value:.0f}", f"{ratio[way]:.2f}")
    Console().print(table)
    shares = [
        median[f"decoding alone{kind}"] / median[f"ours{kind}"] for kind in ("", ", resized store")
    ]
    print(f"decoding is {shares[0]:.0%} of ours, {shares[1]:.0%} with the resized store")
    print(
        f"jitter on the device: {statistics.median(device) / 64:.0f} us an image on one CPU thread"
    )
    print(
        json.dumps(
            {
                "worker_time_ratio": round(ratio["ours"], 3),
                "worker_time_ratio_resized": round(ratio["ours, resized store"], 3),
                "decode_share": round(shares[0], 3),
                "decode_share_resized": round(shares[1], 3),
            }
        )
    )


if __name__ == "__main__":
    main()
