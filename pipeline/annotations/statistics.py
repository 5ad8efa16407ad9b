"""Statistics of annotations in the PartImageNet++ layout, beside the published ones."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from datamodules.annotations.reports import ObjectReport
from datamodules.files.errors import os_errors
from datamodules.files.json_files import write_json
from pipeline.annotations.survey import survey
from pipeline.published import INCLUSION_RELATIONS, PAPER, TABLE_1, TABLE_S1

OURS, PUBLISHED = "#0072B2", "#E69F00"
BINS = {"1-2": range(1, 3), "3-4": range(3, 5), "5-6": range(5, 7)}  # of Table S1, besides 7+


def statistics(reports: Sequence[ObjectReport]) -> dict[str, Any]:
    """Counts the sound entries of annotation files as Tables 1 and S1 do.

    Args:
        reports: one an object category, from `survey`.

    Returns:
        `objects` (categories with an annotated image), `parts` (categories of parts, K),
        `images`, `masks`, `images_without_masks`, `single_part_objects`; `density`, percent of
        images with a mask by number of masks; `masks_per_image`, images by number of masks;
        `inclusion_relations`, `objects_with_relations`; `per_object` with `images`, `masks`,
        `relations` and masks by part; `problems` by kind.
    """
    by_number = Counter(n for report in reports for n in report.masks_per_image)
    per_object = {
        report.name: {
            "images": len(report.masks_per_image),
            "masks": sum(report.masks_per_image),
            "parts": dict(report.masks_per_part),
            "relations": [f"{part}:{whole}" for part, whole in dict.fromkeys(report.relations)],
        }
        for report in reports
        if report.masks_per_image or report.masks_per_part
    }
    relations = [len(content["relations"]) for content in per_object.values()]  # type: ignore[arg-type]
    return {
        "objects": sum(bool(report.masks_per_image) for report in reports),
        "parts": sum(len(report.masks_per_part) for report in reports),
        "images": sum(by_number.values()),
        "masks": sum(number * images for number, images in by_number.items()),
        "images_without_masks": by_number.get(0, 0),
        "single_part_objects": sum(len(report.masks_per_part) == 1 for report in reports),
        "density": density(by_number),
        "masks_per_image": {str(number): by_number[number] for number in sorted(by_number)},
        "inclusion_relations": sum(relations),
        "objects_with_relations": sum(map(bool, relations)),
        "problems": dict(Counter(p.kind for r in reports for p in r.problems).most_common()),
        "per_object": per_object,
    }


def density(images_by_masks: Mapping[int, int]) -> dict[str, float]:
    """Percent of images by number of part masks, in the bins of Table S1.

    Args:
        images_by_masks: number of images by number of masks; images without any do not count.

    Returns:
        Percent of the images that have a mask, 0 where there are none.
    """
    found = {number: images for number, images in images_by_masks.items() if number > 0}
    total = max(1, sum(found.values()))
    binned = {name: sum(found.get(n, 0) for n in numbers) for name, numbers in BINS.items()}
    binned["7+"] = sum(images for number, images in found.items() if number >= 7)
    return {name: 100 * images / total for name, images in binned.items()}


def print_tables(figures: dict[str, Any], console: Console) -> None:
    """Prints sizes, density and relations, each beside the published figure."""
    sizes = Table(title=f"Part data sets; published: {PAPER}, Table 1")
    for column in ("data set", "object categories", "part categories", "images", "part masks"):
        sizes.add_column(column, justify="left" if column == "data set" else "right")
    keys = ("objects", "parts", "images", "masks")
    sizes.add_row("this data", *(f"{figures[key]:,}" for key in keys), style="bold")
    for row in TABLE_1:
        sizes.add_row(f"{row.name} (published)", *(f"{getattr(row, key):,}" for key in keys))
    console.print(sizes)
    masks = Table(title="Images by number of part masks, percent; published: Table S1")
    masks.add_column("source")
    for name in TABLE_S1:
        masks.add_column(name, justify="right")
    masks.add_row("this data", *(f"{value:.2f}" for value in figures["density"].values()))
    masks.add_row("PartImageNet++ (published)", *(f"{value:.2f}" for value in TABLE_S1.values()))
    console.print(masks)
    relations, objects = INCLUSION_RELATIONS
    console.print(
        f"inclusion relations: {figures['inclusion_relations']} in "
        f"{figures['objects_with_relations']} object categories "
        f"(published: {relations} in {objects}); single-part object categories: "
        f"{figures['single_part_objects']}; images without masks: "
        f"{figures['images_without_masks']}"
    )
    if figures["problems"]:
        kinds = ", ".join(f"{kind} {number}" for kind, number in figures["problems"].items())
        console.print(f"not sound and not counted, or worth a look: {kinds}; see check_data")


def draw(figures: dict[str, Any]) -> Figure:
    """Draws density beside the published one, parts and images per object, masks per part."""
    contents = figures["per_object"].values()
    figure = Figure(figsize=(11, 7), layout="constrained")
    (left, right), (below, last) = figure.subplots(2, 2)
    places = range(len(TABLE_S1))
    left.bar([x - 0.2 for x in places], figures["density"].values(), 0.4, color=OURS)
    left.bar([x + 0.2 for x in places], TABLE_S1.values(), 0.4, color=PUBLISHED)
    left.set_xticks(list(places), list(TABLE_S1))
    highest = max(*figures["density"].values(), *TABLE_S1.values())
    left.set_ylim(0, 1.3 * highest)  # room for the legend
    left.legend(["this data", "PartImageNet++ (published, Table S1)"], frameon=False)
    left.set(title="Density", xlabel="part masks in an image", ylabel="% of images")
    numbers = Counter(len(content["parts"]) for content in contents)
    right.bar(list(numbers), list(numbers.values()), color=OURS)
    right.set(title="Parts", xlabel="part categories of an object", ylabel="object categories")
    right.xaxis.get_major_locator().set_params(integer=True)
    images = sorted((content["images"] for content in contents), reverse=True)
    below.fill_between(range(1, len(images) + 1), images, step="mid", color=OURS)
    below.set(title="Images", xlabel="object category, by rank", ylabel="annotated images")
    below.set_ylim(bottom=0)
    masks = sorted((n for content in contents for n in content["parts"].values()), reverse=True)
    last.plot(range(1, len(masks) + 1), masks, color=OURS)
    last.set_yscale("symlog", linthresh=1)
    last.set(title="Masks", xlabel="part category, by rank", ylabel="masks")
    last.set_ylim(bottom=0)
    return figure


@os_errors()
def main(imagenet: Path, pinpp: Path, out: Path, workers: int | None = None) -> None:
    """Counts and density of part annotations beside the published ones.

    Prints tables and writes `statistics.json` and `statistics.png`.

    Args:
        imagenet: folder with train/.
        pinpp: folder with json/ and including/.
        out: folder for the JSON and the plot.
        workers: processes, by default one a core.

    Raises:
        MissingInputError: if a folder is missing or empty.
    """
    reports = survey(pinpp, imagenet, open_images=False, workers=workers)
    figures = statistics(reports)
    print_tables(figures, Console())
    published = {
        "source": PAPER,
        "table_1": [vars(row) for row in TABLE_1],
        "density": TABLE_S1,
        "inclusion_relations": INCLUSION_RELATIONS[0],
        "objects_with_relations": INCLUSION_RELATIONS[1],
    }
    write_json(out / "statistics.json", figures | {"published": published})
    with matplotlib.rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        draw(figures).savefig(out / "statistics.png", dpi=110)
    print(f"{out / 'statistics.json'} and {out / 'statistics.png'} written")
