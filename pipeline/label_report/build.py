"""Builds the label report: one HTML file that needs nothing but itself, and a JSON beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.atomic_files import write_text, written_whole
from datamodules.files.errors import UserError
from datamodules.files.json_files import write_json
from datamodules.masks.part_labels import ImageParts
from pipeline.drawing.pages import render_page
from pipeline.label_report.charts import (
    draw_calibration,
    draw_histograms,
    draw_objects,
    draw_thresholds,
)
from pipeline.label_report.compare import LabelComparison
from pipeline.label_report.pictures import GalleryRow, choose_images, draw_gallery, list_empty
from pipeline.label_report.scan import LabelTotals, scan_labels, shards_of
from pipeline.label_report.summary import summarise
from pipeline.label_report.truth import held_out
from pipeline.runs.manifest import Manifest

THRESHOLDS = tuple(float(score) for score in np.arange(20) / 20)
PER_GALLERY = 6
LISTED_EMPTY, THUMBNAILS = 120, 24
UNLABELLED = "images_without_labels.tsv"


@dataclass(frozen=True)
class Measured:
    """One run after the pass over its shards."""

    title: str
    files: list[Path]
    totals: LabelTotals
    comparison: LabelComparison
    figures: dict[str, Any]


def build_label_report(
    labels: Path,
    truth: Mapping[str, ImageParts],
    vocabulary: PartVocabulary,
    imagenet: Path,
    out: Path,
    *,
    truth_name: str,
    unfiltered: Path | None = None,
    min_score: float = 0.0,
) -> Path:
    """Writes `index.html`, `report.json` and `images_without_labels.tsv`.

    Args:
        labels: stage 2 run folder.
        truth: human annotations by key.
        vocabulary: vocabulary of the labels.
        imagenet: folder with `train/`, for the pictures.
        out: folder to write into.
        truth_name: what the truth is, in words.
        unfiltered: stage 2 run folder of the same images without category filter.
        min_score: pseudo parts of a lower score are left out, where nothing else is said.

    Returns:
        The HTML file.

    Raises:
        MissingInputError: if labels are missing.
        UserError: if a shard is damaged, the runs have different vocabularies, or no annotated
            image has a row.
    """
    folders = {_title(labels, unfiltered is not None): labels}
    if unfiltered is not None:
        folders["without filter"] = unfiltered
        if PartVocabulary.load(unfiltered / "vocabulary.json") != vocabulary:
            raise UserError(
                f"{unfiltered} has another part vocabulary than {labels}: compare runs of the "
                "same annotations"
            )
    shards = {title: shards_of(folder, vocabulary) for title, folder in folders.items()}
    out.mkdir(parents=True, exist_ok=True)
    runs: list[Measured] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        Progress(*columns, TimeRemainingColumn()) as bar,
        written_whole(out / UNLABELLED) as partial,
        partial.open("w") as listing,
    ):
        tasks = {t: bar.add_task(t, total=n) for t, (_, n) in shards.items()}
        for title, (files, _) in shards.items():
            comparison = LabelComparison(vocabulary, THRESHOLDS, min_score)
            lines = None if runs else listing

            def advance(rows: int, task: Any = tasks[title]) -> None:
                bar.advance(task, rows)

            totals = scan_labels(files, truth, comparison, lines, advance)
            if not totals.seen:
                raise UserError(
                    f"no image of {truth_name} has a row in {folders[title]}: give annotations "
                    "of images that stage 2 labelled"
                )
            figures = summarise(totals, comparison)
            figures["missing"] = len(truth.keys() - totals.seen)
            figures["folder"] = str(folders[title])
            manifest = Manifest.find(folders[title])
            figures["state"] = manifest.state if manifest else "no manifest"
            runs.append(Measured(title, files, totals, comparison, figures))
    content = {"truth": truth_name, "annotated": len(truth), "runs": [one.figures for one in runs]}
    write_json(out / "report.json", content)
    page = _render(runs, truth, vocabulary, imagenet / "train", out, truth_name, min_score)
    write_text(out / "index.html", page)
    return out / "index.html"


def _title(run: Path, compared: bool) -> str:
    """What a run is called: by its category filter, where that is known."""
    manifest = Manifest.find(run)
    arguments: Mapping[str, Any] = manifest.model_arguments if manifest else {}
    known = True if compared else arguments.get("category_filter")
    return {True: "with filter", False: "without filter"}.get(known, "labels")  # type: ignore[arg-type]


def _render(
    runs: Sequence[Measured],
    truth: Mapping[str, ImageParts],
    vocabulary: PartVocabulary,
    train: Path,
    out: Path,
    truth_name: str,
    min_score: float,
) -> str:
    first = runs[0]
    galleries: dict[str, list[GalleryRow]] = {
        name: draw_gallery(chosen, truth, first.files, vocabulary, train, out, min_score)
        for name, chosen in choose_images(first.comparison.images, PER_GALLERY).items()
    }
    figures = {one.title: one.figures for one in runs}
    empty = list_empty(first.totals.empty, train, out, LISTED_EMPTY, THUMBNAILS)
    return render_page(
        "label_report.html.j2",
        "pipeline.label_report",
        runs=figures,
        objects=_beside(runs, "objects", ("AP", "AP50", "miou", "coverage", "recall")),
        parts=_beside(runs, "parts", ("AP", "AP50", "iou")),
        first=first.figures,
        title=first.title,
        truth_name=truth_name,
        min_score=min_score,
        charts={
            "thresholds": draw_thresholds(figures, min_score),
            "calibration": draw_calibration(figures),
            "objects": draw_objects(first.figures["objects"]),
            "histograms": draw_histograms(figures),
        },
        galleries=galleries,
        empty=empty,
        failures=first.totals.failures,
        unlabelled=UNLABELLED,
    )


def _beside(runs: Sequence[Measured], table: str, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the first run's table, with the second run's figures as `<key>_unfiltered`."""
    rows = [dict(row) for row in runs[0].figures[table]]
    for run in runs[1:]:
        others = {row["name"]: row for row in run.figures[table]}
        for row in rows:
            other = others.get(row["name"], {})
            row.update({f"{key}_unfiltered": other.get(key) for key in keys})
    return rows


def main(
    labels: Path,
    imagenet: Path,
    unfiltered: Path | None = None,
    pinpp: Path | None = None,
    split: Path | None = None,
    seed: int = 0,
    truth: Path | None = None,
    min_score: float = 0.0,
    out: Path = Path("runs/label_report"),
) -> Path:
    """Compares pseudo labels with human annotations of held-out images.

    Args:
        labels: run folder of stage 2.
        imagenet: folder with train/.
        unfiltered: run folder of the same images without category filter.
        pinpp: folder with json/; its held-out tenth is compared.
        split: split file `{"train": [...], "val": [...]}`, val is compared.
        seed: seed of the 9:1 split that stage 1 was trained with.
        truth: folder with json/, compared whole instead of pinpp.
        min_score: leave out weaker parts, as stage 3 does.
        out: folder to write into.

    Returns:
        The page.

    Raises:
        MissingInputError: if labels or annotations are missing.
        UserError: if they do not fit each other or a file is damaged.
    """
    vocabulary = PartVocabulary.load(labels / "vocabulary.json")
    annotated, name = held_out(vocabulary, pinpp, truth, split, seed)
    return build_label_report(
        labels,
        annotated,
        vocabulary,
        imagenet,
        out,
        truth_name=name,
        unfiltered=unfiltered,
        min_score=min_score,
    )
