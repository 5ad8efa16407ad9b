"""How fast the validator goes through annotations of the size of PartImageNet++.

python benchmarks/check_data.py [--files 1000] [--masks 400000] [--size 384] [--workers N]

The set is made of PartShapes: its annotation files and image folders under many names.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from datamodules.part_shapes.part_shapes import render_part_shapes
from pipeline.annotations.check_data import check_data, result


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
        listed = {
            "images": images,
            "annotations": annotations,
            "categories": content["categories"],
        }
        (root / "pinpp" / "json" / f"{name}.json").write_text(json.dumps(listed))


def main() -> None:
    """Prints sizes and rate; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--masks", type=int, default=400_000)
    parser.add_argument("--size", type=int, default=384, help="side of the images in pixels")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
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
        reports = check_data(
            root / "set" / "imagenet", root / "set" / "pinpp", workers=given.workers
        )
        outcome = result(reports, time.perf_counter() - started)
    rows = {key: outcome[key] for key in ("objects", "images", "masks", "seconds", "summary")}
    rows |= {
        "megabytes": round(size / 1e6, 1),
        "masks_per_second": round(outcome["masks"] / outcome["seconds"]),
        "images_per_second": round(outcome["images"] / outcome["seconds"]),
    }
    for key, value in rows.items():
        print(f"{key:<18} {value}")
    print(json.dumps(rows))


if __name__ == "__main__":  # the checking processes import this file again
    main()
