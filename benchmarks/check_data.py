"""How fast the validator goes through annotations of the size of PartImageNet++.

python benchmarks/check_data.py [--files 1000] [--masks 400000] [--size 384] [--workers N]

The set is made of PartShapes: its annotation files and image folders under many names. As in
ImageNet, a class of train has 1,280 images, most of them not annotated, and one of val 50. What the
checks of images cost (names, hidden files, val, EXIF) is measured beside the same check without
them, in turns, in processor time of one process.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from unittest.mock import patch

from datamodules.part_shapes.part_shapes import render_part_shapes
from pipeline.annotations.check_data import check_data, result
from pipeline.annotations.survey import survey

TRAIN_IMAGES, VAL_IMAGES = 1280, 50  # of a class of ImageNet


def multiply(shapes: Path, root: Path, files: int, masks: int) -> None:
    """Writes `files` annotation files with `masks` masks in all, by linking PartShapes' images.

    Every image is listed under as many names, each a link, as the number of masks asks for.
    """
    sources = sorted((shapes / "pinpp" / "json").glob("*.json"))
    contents = [json.loads(source.read_bytes()) for source in sources]
    (root / "pinpp" / "json").mkdir(parents=True)
    share = masks // files
    for index in range(files):
        name, content = f"n{index:08d}", contents[index % len(contents)]
        folder = root / "imagenet" / "train" / name
        folder.mkdir(parents=True)
        by_image: dict[int, list[dict]] = {}
        for annotation in content["annotations"]:
            by_image.setdefault(annotation["image_id"], []).append(annotation)
        images, annotations = [], []
        while len(annotations) < share:
            image = content["images"][len(images) % len(content["images"])]
            number = len(images) + 1
            os.link(shapes / "imagenet/train" / image["file_name"], folder / f"{number}.jpg")
            images.append(image | {"id": number, "file_name": f"{name}/{number}.jpg"})
            for annotation in by_image[image["id"]]:
                annotation_id = len(annotations) + 1
                annotations.append(annotation | {"id": annotation_id, "image_id": number})
        other = shapes / "imagenet/train" / content["images"][0]["file_name"]
        for number in range(len(images) + 1, TRAIN_IMAGES + 1):
            os.link(other, folder / f"{number}.jpg")
        folder = root / "imagenet" / "val" / name
        folder.mkdir(parents=True)
        for number in range(1, VAL_IMAGES + 1):
            os.link(other, folder / f"{number}.jpg")
        listed = {
            "images": images,
            "annotations": annotations,
            "categories": content["categories"],
        }
        (root / "pinpp" / "json" / f"{name}.json").write_text(json.dumps(listed))


@contextmanager
def without_image_checks() -> Iterator[None]:
    """The annotations' check does not look at EXIF and at names."""
    with (
        patch("datamodules.images.image_files.exif_orientation", lambda image: 1),
        patch("datamodules.annotations.checks.is_utf8", lambda name: True),
    ):
        yield


def added_percent(data: tuple[Path, Path], rounds: int) -> float:
    """What the checks of images add to the time of the others, percent; the median of rounds."""
    added = []
    for _ in range(rounds):
        started = time.process_time()
        with without_image_checks():
            survey(data[1], data[0], workers=1)
        between = time.process_time()
        check_data(*data, workers=1)
        added.append((time.process_time() - between) / (between - started) - 1)
    return round(100 * median(added), 1)


def main() -> None:
    """Prints sizes and rate; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--masks", type=int, default=400_000)
    parser.add_argument("--size", type=int, default=384, help="side of the images in pixels")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.add_argument("--rounds", type=int, default=3, help="of the comparison")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shapes = render_part_shapes(
            root / "shapes",
            num_objects=10,
            train_per_object=20,
            annotated_per_object=20,
            val_per_object=1,
            size=given.size,
        )
        multiply(shapes, root / "set", given.files, given.masks)
        size = sum(file.stat().st_size for file in (root / "set").rglob("*.json"))
        started = time.perf_counter()
        data = (root / "set" / "imagenet", root / "set" / "pinpp")
        found = check_data(*data, workers=given.workers)
        outcome = result(found, time.perf_counter() - started)
        added = added_percent(data, given.rounds)
    rows = {key: outcome[key] for key in ("objects", "images", "masks", "seconds", "summary")}
    rows |= {
        "all_images": sum(split["images"] for split in outcome["splits"].values()),
        "image_checks_percent": added,
        "megabytes": round(size / 1e6, 1),
        "masks_per_second": round(outcome["masks"] / outcome["seconds"]),
        "images_per_second": round(outcome["images"] / outcome["seconds"]),
    }
    for key, value in rows.items():
        print(f"{key:<18} {value}")
    print(json.dumps(rows))


if __name__ == "__main__":  # the checking processes import this file again
    main()
