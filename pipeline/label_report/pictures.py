"""Galleries of the label report: best, median and worst images, and images without labels."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from urllib.parse import quote

import numpy as np

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.images.image_files import read_image
from datamodules.masks.part_labels import ImageParts
from datamodules.masks.part_masks import composite
from pipeline.drawing.pages import data_uri
from pipeline.drawing.palette import part_colours
from pipeline.drawing.part_overlays import legend_of, show_parts
from pipeline.label_report.compare import ImageQuality
from pipeline.label_report.scan import read_rows

SIDE = 288  # pixels
THUMBNAIL = 144  # pixels
PER_OBJECT = 2  # images of an object category in a gallery


@dataclass(frozen=True)
class GalleryRow:
    """One compared image: as it is, with human and with pseudo parts.

    Attributes:
        quality: its figures.
        link: address of the image file.
        pictures: three `data:` addresses.
        legend: part names and colours.
    """

    quality: ImageQuality
    link: str
    pictures: list[str]
    legend: list[tuple[str, str]]


@dataclass(frozen=True)
class Listed:
    """An image without labels: its key, the file's address, a thumbnail where there is one."""

    key: str
    link: str
    thumbnail: str | None


def choose_images(images: Sequence[ImageQuality], count: int) -> dict[str, list[ImageQuality]]:
    """Picks the best, median and worst images by mIoU, at most two of an object category.

    Images without any pseudo part are left out: they have a list of their own.

    Args:
        images: all compared images.
        count: at most so many of each kind.

    Returns:
        `best`, `median` and `worst`; no image is in two of them.
    """
    known = [one for one in images if one.miou is not None and one.parts]
    ranked = sorted(known, key=lambda one: (one.miou or 0.0, one.key))
    middle = sorted(range(len(ranked)), key=lambda place: abs(place - (len(ranked) - 1) / 2))
    orders = {
        "worst": ranked,
        "best": ranked[::-1],
        "median": [ranked[place] for place in middle],
    }
    chosen: dict[str, list[ImageQuality]] = {}
    used: set[str] = set()
    share = min(count, -(-len(ranked) // 3))
    for name, order in orders.items():
        per_label: Counter[int] = Counter()
        chosen[name] = []
        for one in order:
            if len(chosen[name]) == share or one.key in used or per_label[one.label] == PER_OBJECT:
                continue
            per_label[one.label] += 1
            chosen[name].append(one)
        used.update(one.key for one in chosen[name])
    return {name: chosen[name] for name in ("best", "median", "worst")}


def draw_gallery(
    chosen: Sequence[ImageQuality],
    truth: Mapping[str, ImageParts],
    files: Sequence[Path],
    vocabulary: PartVocabulary,
    train: Path,
    page: Path,
    min_score: float,
) -> list[GalleryRow]:
    """Draws compared images; those that cannot be read are left out.

    Args:
        chosen: images to draw.
        truth: human annotations by key.
        files: the run's shards; only those that hold a chosen image are read.
        vocabulary: vocabulary of the labels.
        train: folder of the images.
        page: folder of the report, which links start from.
        min_score: pseudo parts of a lower score are not painted.
    """
    shards = [files[index] for index in sorted({one.shard for one in chosen})]
    rows = read_rows(shards, [one.key for one in chosen])
    colours = part_colours(vocabulary)
    drawn = []
    for quality in chosen:
        human = truth[quality.key]
        pixels = _read(train / quality.key)
        if pixels is None or pixels.shape[:2] != (human.height, human.width):
            continue
        # only images whose labels have parts are chosen, and those are of the annotation's size
        pseudo = composite(rows[quality.key].confident(min_score), vocabulary.inclusions)
        masks = (None, composite(human, vocabulary.inclusions), pseudo)
        pictures = [data_uri(show_parts(pixels, mask, colours, SIDE)) for mask in masks]
        legend = legend_of(masks, vocabulary, colours)
        drawn.append(GalleryRow(quality, link_to(train / quality.key, page), pictures, legend))
    return drawn


def list_empty(
    empty: Mapping[int, Sequence[str]], train: Path, page: Path, listed: int, thumbnails: int
) -> list[Listed]:
    """Lists images without parts, in turn from every object category.

    Args:
        empty: keys by object category.
        train: folder of the images.
        page: folder of the report, which links start from.
        listed: at most so many.
        thumbnails: so many of them, spread over the list, with a thumbnail.
    """
    turns = zip_longest(*(empty[label] for label in sorted(empty)))
    keys = [key for key in chain.from_iterable(turns) if key is not None][:listed]
    shown = set(np.linspace(0, len(keys) - 1, min(thumbnails, len(keys))).astype(int).tolist())
    entries = []
    for place, key in enumerate(keys):
        pixels = _read(train / key) if place in shown else None
        drawn = None if pixels is None else show_parts(pixels, None, np.zeros((1, 3)), THUMBNAIL)
        uri = None if drawn is None else data_uri(drawn)
        entries.append(Listed(key, link_to(train / key, page), uri))
    return entries


def link_to(image: Path, page: Path) -> str:
    """Address of an image file, relative to the folder of the page."""
    return quote(Path(os.path.relpath(image.resolve(), page.resolve())).as_posix())


def _read(path: Path) -> np.ndarray | None:
    try:
        return np.asarray(read_image(path))
    except (OSError, ValueError):
        return None
