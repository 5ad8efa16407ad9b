"""Seconds and memory of the importers and of scoring a segmenter's results, at realistic size.

    python benchmarks/importers.py [--images 10000] [--only pascal_part coco_results] [--out FOLDER]

Synthetic sources in the released formats: Pascal-Part (MATLAB files, 500x375), Cityscapes Panoptic
Parts (TIFF; 512x256, a sixteenth of the area of a street scene) and PartImageNet (COCO file), and
the results of a segmenter in COCO's format on as many annotated images. Each is imported twice, a
tenth of it and all: the peak of the largest process should not follow the number of images but by
what must be kept of each. `--out` keeps the sources, so that a second run does not draw them again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from rich.progress import track
from scipy.io import savemat

from pipeline.drawing.markdown_table import markdown_table

PASCAL = {"dog": ("head", "torso", "lfleg", "tail"), "car": ("frontside", "wheel_1", "wheel_2")}
SCENE, OBJECT = (256, 512), (375, 500)
CLASSES = tuple(f"n{number:08d}" for number in range(1, 101))  # of PartImageNet and of the results
PARTS = ("Head", "Body", "Foot", "Tail")


def blob(rng: np.random.Generator, shape: tuple[int, int], box: tuple[int, ...]) -> np.ndarray:
    """An ellipse in a box (top, left, height, width): bool of `shape`."""
    top, left, height, width = box
    y, x = np.ogrid[: shape[0], : shape[1]]
    y, x = (y - top - height / 2) / (height / 2), (x - left - width / 2) / (width / 2)
    return x**2 + y**2 + 0.1 * rng.random() < 1


def pixels(rng: np.random.Generator, shape: tuple[int, int]) -> Image.Image:
    """A coarse random picture, which compresses about as photographs do."""
    small = rng.integers(0, 256, (shape[0] // 8, shape[1] // 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)


def parts_of(
    rng: np.random.Generator, shape: tuple[int, int], number: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """An object and so many parts, one below the other: bool masks of `shape`."""
    height = int(rng.integers(shape[0] // 3, shape[0] * 3 // 4))
    width = int(rng.integers(shape[1] // 4, shape[1] // 2))
    top = int(rng.integers(0, shape[0] - height))
    left = int(rng.integers(0, shape[1] - width))
    whole = blob(rng, shape, (top, left, height, width))
    rows = np.arange(shape[0])[:, None]
    edges = np.linspace(top, top + height, number + 1)
    return whole, [whole & (rows >= a) & (rows < b) for a, b in pairwise(edges)]


def struct(entries: list[dict[str, object]]) -> np.ndarray:
    """A struct array as MATLAB writes it."""
    array = np.empty((1, len(entries)), [(key, object) for key in entries[0]])
    for place, entry in enumerate(entries):
        array[0, place] = tuple(entry.values())
    return array


def write_pascal(root: Path, count: int) -> list[str]:
    """Pascal-Part, and the arguments that import it."""
    for folder in ("JPEGImages", "Annotations_Part", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    names = [f"2008_{number:06d}" for number in range(count)]
    for number, name in enumerate(track(names, "pascal_part")):
        rng = np.random.default_rng(number)
        kind = ("dog", "car")[number % 2]
        whole, masks = parts_of(rng, OBJECT, len(PASCAL[kind]))
        parts = [
            {"part_name": part, "mask": mask.astype(np.uint8)}
            for part, mask in zip(PASCAL[kind], masks, strict=True)
        ]
        entry: dict[str, object] = {"class": kind, "class_ind": 1, "mask": whole.astype(np.uint8)}
        content = {"imname": name, "objects": struct([entry | {"parts": struct(parts)}])}
        savemat(root / "Annotations_Part" / f"{name}.mat", {"anno": content}, do_compression=True)
        pixels(rng, OBJECT).save(root / "JPEGImages" / f"{name}.jpg")
    cut = count * 9 // 10
    (root / "ImageSets/Main/train.txt").write_text("\n".join(names[:cut]) + "\n")
    (root / "ImageSets/Main/val.txt").write_text("\n".join(names[cut:]) + "\n")
    return ["import_parts", "pascal_part", f"--source={root}"]


def write_panoptic(root: Path, count: int) -> list[str]:
    """Cityscapes Panoptic Parts, and the arguments that import it."""
    for number in track(range(count), "panoptic_parts"):
        rng, split = np.random.default_rng(number), "val" if number % 10 == 9 else "train"
        ids = np.full(SCENE, 7, np.int32)
        for sid, parts in ((24, 4), (26, 5)):
            _, masks = parts_of(rng, SCENE, parts)
            for part, mask in enumerate(masks, start=1):
                ids[mask] = (sid * 1000 + number % 1000) * 100 + part
        name = f"aachen_{number:06d}_000019"
        files = {
            "gtFinePanopticParts": f"{name}_gtFinePanopticParts.tif",
            "leftImg8bit": f"{name}_leftImg8bit.png",
        }
        for folder, file in files.items():
            place = root / folder / split / "aachen" / file
            place.parent.mkdir(parents=True, exist_ok=True)
            if folder == "leftImg8bit":
                pixels(rng, SCENE).save(place, compress_level=1)
            else:
                Image.fromarray(ids).save(place, compression="tiff_lzw")
    return ["import_parts", "panoptic_parts", f"--source={root}"]


def write_coco(root: Path, count: int, layout: str) -> None:
    """Images and COCO annotations: one file of all (`all`), or one for each object as in PIN++."""
    files: dict[str, dict[str, list]] = {}
    names = [f"{name} {part}" if layout == "all" else part for name in CLASSES for part in PARTS]
    for number in track(range(count), f"COCO, {layout}"):
        rng, place = np.random.default_rng(number), number % len(CLASSES)
        name = CLASSES[place]
        key = "all" if layout == "all" else name
        file = files.setdefault(key, {"images": [], "annotations": [], "categories": []})
        image = f"{name}_{number}.JPEG"
        folder = root / "imagenet" / "train" / name
        folder.mkdir(parents=True, exist_ok=True)
        pixels(rng, OBJECT).save(folder / image, "JPEG")
        file_name = image if layout == "all" else f"{name}/{image}"
        size = {"height": OBJECT[0], "width": OBJECT[1]}
        file["images"].append({"id": number, "file_name": file_name} | size)
        _, masks = parts_of(rng, OBJECT, len(PARTS))
        for part, mask in enumerate(masks):
            rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            category = place * len(PARTS) + part if layout == "all" else part + 1
            file["annotations"].append(
                {
                    "id": len(file["annotations"]) + 1,
                    "image_id": number,
                    "category_id": category,
                    "iscrowd": 0,
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                    "area": int(coco_mask.area(rle)),
                    "bbox": coco_mask.toBbox(rle).tolist(),
                }
            )
    folder = root / ("coco" if layout == "all" else "pinpp/json")
    folder.mkdir(parents=True)
    for key, file in files.items():
        ids = enumerate(names) if layout == "all" else enumerate(PARTS, start=1)
        super_category = {"supercategory": "Quadruped"} if layout == "all" else {}
        file["categories"] = [{"id": n, "name": name} | super_category for n, name in ids]
        (folder / f"{key}.json").write_text(json.dumps(file))


def write_part_imagenet(root: Path, count: int) -> list[str]:
    """PartImageNet, and the arguments that import it."""
    write_coco(root, count, "all")
    file, images = root / "coco" / "all.json", root / "imagenet"
    return ["import_parts", "part_imagenet", f"--source=[{file}]", f"--imagenet={images}"]


def write_results(root: Path, count: int) -> list[str]:
    """A list of results on PIN++ annotations, and the arguments that score it."""
    write_coco(root, count, "each")
    (root / "pinpp" / "including").mkdir()
    found = []
    for file in sorted((root / "pinpp" / "json").glob("*.json")):
        content = json.loads(file.read_text())
        rng = np.random.default_rng(0)
        keys = {image["id"]: image["file_name"] for image in content["images"]}
        for one in content["annotations"]:
            name = f"{file.stem}:{PARTS[one['category_id'] - 1]}"
            key, score = keys[one["image_id"]], round(float(rng.random()), 3)
            found.append({"image_id": key, "category_name": name, "score": score})
            found[-1]["segmentation"] = one["segmentation"]
    (root / "results.json").write_text(json.dumps(found))
    split = root / "split.json"
    keys = sorted({one["image_id"] for one in found})
    split.write_text(json.dumps({"train": [], "val": keys}))
    return [
        "score_segmenter",
        f"--results={root / 'results.json'}",
        f"--imagenet={root / 'imagenet'}",
        f"--pinpp={root / 'pinpp'}",
        f"--split={split}",
    ]


FORMATS: dict[str, Callable[[Path, int], list[str]]] = {
    "pascal_part": write_pascal,
    "panoptic_parts": write_panoptic,
    "part_imagenet": write_part_imagenet,
    "coco_results": write_results,
}


def measure(arguments: list[str], out: Path) -> tuple[float, float]:
    """Runs a command; its seconds and the peak of its largest process in MB."""
    command = [sys.executable, "-W", "ignore", "-m", "pipeline", *arguments, f"--out={out}"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - started, used.ru_maxrss / 1024


def main() -> None:
    """Draws the sources, runs the commands and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--only", nargs="*", choices=list(FORMATS), help="these formats")
    parser.add_argument("--out", type=Path, help="folder that keeps the sources")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        kept = args.out or Path(scratch)
        for name in args.only or FORMATS:
            for count in (args.images // 10, args.images):
                root = kept / f"{name}_{count}"
                arguments = root / "arguments.json"
                if not arguments.is_file():
                    arguments.parent.mkdir(parents=True)
                    arguments.write_text(json.dumps(FORMATS[name](root / "source", count)))
                with tempfile.TemporaryDirectory(dir=kept) as out:
                    given = json.loads(arguments.read_text())
                    seconds, peak = measure(given, Path(out) / "out")
                rows.append((name, f"{count:,}", f"{seconds:.0f}", f"{count / seconds:.0f}"))
                rows[-1] = (*rows[-1], f"{peak:.0f}")
                print(*rows[-1], sep="  ", flush=True)
    header = ("format", "images", "seconds", "images/s", "peak MB of a process")
    print(markdown_table(header, rows, numbers=4))


if __name__ == "__main__":
    main()
