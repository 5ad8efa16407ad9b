"""Galleries of the report: part masks of train images, and adversarial examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.errors import UserError
from pipeline.drawing.pages import data_uri
from pipeline.drawing.palette import part_colours
from pipeline.drawing.part_overlays import legend_of, show_parts
from pipeline.drawing.samples import Sample, pick_samples
from pipeline.report.part_maps import find_model, find_vocabulary, predict_parts
from pipeline.report.reading.evaluations import Evaluation
from pipeline.report.reading.examples import ExamplePair, read_examples

GALLERY_SIDE = 288  # pixels
EXAMPLE_SIDE = 160  # pixels


@dataclass(frozen=True)
class Samples:
    """Train images with human and pseudo part masks.

    Attributes:
        vocabulary: Of the masks; None without images.
        images: What `pick_samples` gave.
        note: Why there is nothing to show; empty if there is.
    """

    vocabulary: PartVocabulary | None
    images: Sequence[Sample]
    note: str


def read_samples(
    vocabularies: Sequence[Path],
    labels: Path,
    imagenet: Path | None,
    pinpp: Path | None,
    score_threshold: float,
    seed: int,
) -> Samples:
    """Train images with human and pseudo part masks.

    Args:
        vocabularies: Files that may hold the vocabulary of the runs; the first that exists.
        labels: Run folder of stage 2.
        imagenet: Folder with `train/`.
        pinpp: Folder with `json/`.
        score_threshold: Pseudo parts below this score are not painted.
        seed: Seed of the split of stage 1.
    """
    if imagenet is None or pinpp is None:
        return Samples(None, (), "not shown: give --imagenet and --pinpp")
    try:
        existing = [path for path in vocabularies if path.is_file()]
        if existing:
            vocabulary = PartVocabulary.load(existing[0])
        else:
            vocabulary = PartVocabulary.from_pinpp(pinpp, imagenet)
        samples = pick_samples(
            imagenet, pinpp, vocabulary, labels, score_threshold=score_threshold, seed=seed
        )
    except (FileNotFoundError, ValueError) as error:
        return Samples(None, (), f"not shown: {error}")
    return Samples(vocabulary, samples, "" if samples else "not shown: no annotated image")


def mask_gallery(samples: Samples) -> list[dict[str, Any]]:
    """Rows of the gallery: each image, its human and its pseudo part masks, a legend."""
    if samples.vocabulary is None:
        return []
    colours = part_colours(samples.vocabulary)
    rows = []
    for sample in samples.images:
        masks = (None, sample.human, sample.pseudo)
        pictures = [
            data_uri(show_parts(sample.image, mask, colours, GALLERY_SIDE))
            if position == 0 or mask is not None
            else None
            for position, mask in enumerate(masks)
        ]
        legend = legend_of(masks, samples.vocabulary, colours)
        rows.append({"key": sample.key, "pictures": pictures, "legend": legend})
    return rows


def example_gallery(runs: Path, evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Adversarial examples of each model, with the part maps where it has them.

    Raises:
        UserError: If a file of examples is damaged.
    """
    groups = []
    for one in evaluations:
        pairs = read_examples(one.folder)
        if not pairs:
            continue
        shown = [_shown(pair) for pair in pairs]
        try:
            _add_parts(runs, one, pairs, shown)
            note = ""
        except (FileNotFoundError, ValueError) as error:
            note = f"part maps: not shown, {error}"
        groups.append({"model": one.name, "pairs": shown, "note": note})
    return groups


def _shown(pair: ExamplePair) -> dict[str, Any]:
    blank = np.zeros((1, 3), dtype=np.uint8)
    clean, adversarial = (
        data_uri(show_parts(image, None, blank, EXAMPLE_SIDE))
        for image in (pair.clean, pair.adversarial)
    )
    difference = data_uri(pair.difference, "png")
    return {
        "pair": pair,
        "clean": clean,
        "adversarial": adversarial,
        "difference": difference,
        "parts": [],
        "legend": [],
    }


def _add_parts(
    runs: Path, one: Evaluation, pairs: Sequence[ExamplePair], shown: list[dict[str, Any]]
) -> None:
    model = find_model(one.model, runs, one.name)
    vocabulary = find_vocabulary(one.folder, model)
    colours = part_colours(vocabulary)
    images = np.stack([image for pair in pairs for image in (pair.clean, pair.adversarial)])
    maps = predict_parts(model, images)
    if maps.max() > vocabulary.num_parts:
        raise UserError(f"{model} knows other parts than {one.folder / 'vocabulary.json'}")
    for place, entry in enumerate(shown):
        both = (2 * place, 2 * place + 1)
        entry["parts"] = [
            data_uri(show_parts(images[i], maps[i], colours, EXAMPLE_SIDE)) for i in both
        ]
        entry["legend"] = legend_of([maps[i] for i in both], vocabulary, colours)
