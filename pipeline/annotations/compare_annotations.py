"""Compares two part annotations of the same images: figures, JSON and a gallery side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.files.atomic_files import write_text
from datamodules.files.errors import UserError
from datamodules.files.json_files import write_json
from datamodules.images.image_files import read_image
from datamodules.masks.part_labels import ImageParts
from datamodules.masks.part_masks import composite
from pipeline.annotations.agreement import ObjectAgreement, compare_objects, overall
from pipeline.drawing.pages import data_uri, render_page
from pipeline.drawing.palette import PALETTE, part_colours
from pipeline.drawing.part_overlays import legend_of, show_parts

SIDE = 240  # longer side of a gallery picture in pixels


def compare_annotations(
    a: Path, b: Path, imagenet: Path, out: Path, gallery: int = 2
) -> dict[str, Any]:
    """Writes `out/comparison.json` and `out/index.html`.

    Args:
        a: folder with `json/`, such as PIN++.
        b: folder with `json/`, such as PartImageNet imported.
        imagenet: folder with `train/`.
        out: folder for the two files.
        gallery: images shown of each object category, from the least to the best agreement.

    Returns:
        The content of `comparison.json`.

    Raises:
        MissingInputError: if a folder is missing.
        UserError: if an annotation file is broken or no object category is annotated by both.
    """
    vocabularies = PartVocabulary.from_pinpp(a, imagenet), PartVocabulary.from_pinpp(b, imagenet)
    annotations = _annotated(a, vocabularies[0]), _annotated(b, vocabularies[1])
    objects, problems = compare_objects(annotations, vocabularies)
    names = (a.name, b.name) if a.name != b.name else (str(a), str(b))
    content = {
        "a": str(a),
        "b": str(b),
        "overall": overall(objects),
        "objects": [_figures(one, vocabularies) for one in objects],
        "problems": problems,
    }
    page = render_page(
        "comparison.html.j2",
        "pipeline.annotations",
        names=names,
        overall=content["overall"],
        objects=content["objects"],
        problems=problems,
        gallery=_gallery(objects, annotations, vocabularies, imagenet, gallery),
    )
    write_json(out / "comparison.json", content)
    write_text(out / "index.html", page)
    return content


def _annotated(root: Path, vocabulary: PartVocabulary) -> list[ImageParts]:
    return [image for image in read_annotations(root, vocabulary) if image.instances]


def _figures(
    one: ObjectAgreement, vocabularies: tuple[PartVocabulary, PartVocabulary]
) -> dict[str, Any]:
    words = [[name.rpartition(":")[2] for name in vocabulary.parts] for vocabulary in vocabularies]
    return {
        "object": one.name,
        "parts": one.parts,
        "images": one.images,
        "common_images": len(one.common),
        "masks_per_image": one.masks,
        "covered": one.covered,
        "object_iou": one.mean("object_iou"),
        "mask_iou": one.mean("mask_iou"),
        "matched": one.mean("matched"),
        "partners": [
            {"a": words[0][i - 1], "b": words[1][j - 1], "count": count, "iou": iou}
            for i, j, count, iou in one.partners()
        ],
    }


def _gallery(
    objects: Sequence[ObjectAgreement],
    annotations: tuple[Sequence[ImageParts], Sequence[ImageParts]],
    vocabularies: tuple[PartVocabulary, PartVocabulary],
    imagenet: Path,
    per_object: int,
) -> list[dict[str, Any]]:
    """Object categories with their rows of pictures."""
    colours = part_colours(vocabularies[0]), part_colours(vocabularies[1])
    by_key = tuple({image.key: image for image in side} for side in annotations)
    sections = []
    for one in track(objects, "Drawing", transient=True):
        label = vocabularies[0].objects.index(one.name)
        align_colours(one, label, vocabularies, colours)
        shown = []
        ranked = sorted(one.common, key=lambda agreement: agreement.quality)
        places = np.linspace(0, len(ranked) - 1, min(per_object, len(ranked))).round()
        for agreement in (ranked[place] for place in places.astype(int)):
            title = (
                f"object IoU {agreement.object_iou:.2f}, mask IoU {agreement.mask_iou:.2f}, "
                f"matched {agreement.matched:.2f}"
            )
            shown.append((title, [side[agreement.key] for side in by_key]))
        if not ranked and per_object:
            own = [[image for image in side if image.label == label] for side in annotations]
            most = [max(side, key=lambda image: len(image.instances)) for side in own]
            shown.append(("no image in common", most))
        rows = [
            {"title": title, "images": [one.key for one in images], "common": bool(ranked)}
            | _pictures(images, vocabularies, colours, imagenet, bool(ranked))
            for title, images in shown
        ]
        sections.append({"name": one.name, "rows": rows})
    return sections


def _pictures(
    images: Sequence[ImageParts],
    vocabularies: Sequence[PartVocabulary],
    colours: Sequence[np.ndarray],
    imagenet: Path,
    common: bool,
) -> dict[str, Any]:
    """Pictures and legends of A and B, first the image itself if it is `common` to both.

    Where a picture cannot be shown, `note` says why.
    """
    pictures: list[str] = []
    legends: list[list[tuple[str, str]]] = []
    try:
        for parts, vocabulary, palette in zip(images, vocabularies, colours, strict=True):
            pixels = np.asarray(read_image(imagenet / "train" / parts.key))
            mask = composite(parts, vocabulary.inclusions)
            if pixels.shape[:2] != mask.shape:
                raise UserError(f"{parts.key} is {pixels.shape[:2]}, annotated as {mask.shape}")
            if common and not pictures:
                pictures.append(data_uri(show_parts(pixels, None, palette, SIDE)))
            pictures.append(data_uri(show_parts(pixels, mask, palette, SIDE)))
            legends.append(legend_of([mask], vocabulary, palette))
    except (FileNotFoundError, ValueError) as error:
        return {"pictures": [], "legends": [], "note": str(error)}
    return {"pictures": pictures, "legends": legends, "note": ""}


def align_colours(
    one: ObjectAgreement,
    label: int,
    vocabularies: tuple[PartVocabulary, PartVocabulary],
    colours: tuple[np.ndarray, np.ndarray],
) -> None:
    """Gives a part of B the colour of the part of A that it was paired with most often."""
    place_of = {part: place for place, part in enumerate(vocabularies[0].parts_of(label))}
    taken: dict[int, int] = {}
    for part_a, part_b, _, _ in one.partners():
        if part_b not in taken and place_of[part_a] not in taken.values():
            taken[part_b] = place_of[part_a]
    free = [p for p in range(len(place_of), len(PALETTE)) if p not in taken.values()]
    free += [p for p in range(len(place_of)) if p not in taken.values()]
    for part in vocabularies[1].parts_of(label):
        place = taken[part] if part in taken else free.pop(0) if free else 0
        colours[1][part] = PALETTE[place % len(PALETTE)]


def _print_table(content: dict[str, Any]) -> None:
    table = Table("object", "parts", "images", "both", "masks", "covered", "object IoU", "mask IoU")
    for row in content["objects"]:
        cells = [
            "/".join(str(len(names)) for names in row["parts"]),
            "/".join(map(str, row["images"])),
            str(row["common_images"]),
            "/".join(f"{value:.1f}" for value in row["masks_per_image"]),
            "/".join(f"{value:.2f}" for value in row["covered"]),
            *("-" if row[k] is None else f"{row[k]:.3f}" for k in ("object_iou", "mask_iou")),
        ]
        table.add_row(row["object"], *cells)
    Console().print(table)


def main(a: Path, b: Path, imagenet: Path, out: Path, gallery: int = 2) -> Path:
    """Compares two part annotations of the same images: figures, JSON and a gallery.

    Args:
        a: folder with json/, such as PIN++.
        b: another one, such as PartImageNet imported.
        imagenet: folder with train/.
        out: folder for `comparison.json` and `index.html`.
        gallery: images shown of each object category.

    Returns:
        The page.

    Raises:
        MissingInputError: if a folder is missing.
        UserError: if an annotation file is broken or no object category is annotated by both.
    """
    _print_table(compare_annotations(a, b, imagenet, out, max(0, gallery)))
    return out / "index.html"
