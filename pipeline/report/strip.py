"""The strip of pictures that the report opens with: one image through the whole pipeline a row."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.evaluation.attack_batches import Interpolation, to_part_map, to_pixels
from datamodules.files.errors import MissingInputError
from pipeline.drawing.pages import data_uri
from pipeline.drawing.palette import part_colours
from pipeline.drawing.part_overlays import legend_of, show_parts
from pipeline.drawing.samples import Sample
from pipeline.report.part_maps import STEPS, AttackedParts, attack_parts, find_model
from pipeline.report.reading.evaluations import Evaluation
from pipeline.report.reading.runs import data_arguments
from pipeline.report.strip_images import COUNT, StripImages

SIDE = 224  # pixels; a cell is half as wide on the page, so that it is sharp on dense screens
TITLES = ("image", "human parts", "pseudo labels", "part map", "under attack")
MISSING = ("", "not annotated", "no label", "no part map", "no part map")
OTHERS = "+ parts of other objects"
EPS = 4 / 255


@dataclass(frozen=True)
class StripCell:
    """A picture, or why there is none.

    Attributes:
        uri: `data:` address; empty without a picture.
        note: Below a picture what the model says, in place of one a word why it is missing.
        is_right: Whether that answer is true; None where there is no answer.
    """

    uri: str = ""
    note: str = ""
    is_right: bool | None = None


@dataclass(frozen=True)
class Strip:
    """Rows of pictures.

    Attributes:
        rows: Of each image its key, a cell for each of `TITLES`, and the legend of its parts.
        caption: What the pictures are.
        note: What is missing and why; empty if nothing is.
    """

    rows: tuple[tuple[str, tuple[StripCell, ...], Sequence[tuple[str, str]]], ...]
    caption: str
    note: str = ""


def choose_images(samples: Sequence[Sample], count: int = COUNT) -> list[Sample]:
    """Those with both human and pseudo parts first, each of another object, in their order."""
    by_object: dict[str, Sample] = {}
    for sample in sorted(samples, key=_lacking):
        by_object.setdefault(sample.key.split("/", 1)[0], sample)
    chosen = sorted(by_object.values(), key=_lacking)[:count]
    return [sample for sample in samples if any(sample is one for one in chosen)]


def draw_strip(
    source: StripImages,
    vocabulary: PartVocabulary,
    runs: Path,
    evaluation: Evaluation | None,
) -> Strip:
    """The strip of some images.

    Args:
        source: Images with their human and pseudo parts.
        vocabulary: Of the parts.
        runs: Folder of all runs.
        evaluation: Of the model whose part maps are shown; None without one.
    """
    chosen = choose_images(source.samples)
    if not chosen:
        return Strip((), "")
    images, masks = _as_evaluated(chosen, evaluation)
    found, note = _part_maps(images, chosen, vocabulary, runs, evaluation)
    colours = part_colours(vocabulary)
    rows = []
    for place, sample in enumerate(chosen):
        pixels = images[place].permute(1, 2, 0).numpy()
        truth = sample.key.split("/", 1)[0]
        shown: list[np.ndarray | None] = [np.zeros(pixels.shape[:2], np.int32), *masks[place]]
        answers: list[str | None] = [None, None, None]
        if found is None:
            shown, answers = [*shown, None, None], [*answers, None, None]
        else:
            shown += [found.clean[place], found.attacked[place]]
            classes = (found.clean_class[place], found.attacked_class[place])
            answers += [vocabulary.objects[one] for one in classes]
        cells = [
            StripCell(note=missing)
            if mask is None
            else StripCell(
                data_uri(show_parts(pixels, mask, colours, SIDE)),
                answer or "",
                None if answer is None else answer == truth,
            )
            for mask, answer, missing in zip(shown, answers, MISSING, strict=True)
        ]
        rows.append((sample.key, tuple(cells), legend_of_object(truth, shown, vocabulary, colours)))
    notes = " ".join(filter(None, (source.note, note)))
    return Strip(tuple(rows), _caption(source.split, evaluation if found else None), notes)


def legend_of_object(
    truth: str,
    masks: Sequence[np.ndarray | None],
    vocabulary: PartVocabulary,
    colours: np.ndarray,
) -> list[tuple[str, str]]:
    """Names and colours of an object's parts; without a colour, that a mask has others, too.

    Args:
        truth: Object category of the image.
        masks: Part ids of any size, 0 = background; None for a mask that is missing.
        vocabulary: Of the parts.
        colours: Colours by part id, uint8 (K + 1, 3).
    """
    own = np.array([0, *vocabulary.parts_of(vocabulary.objects.index(truth))])
    known = [None if mask is None else np.where(np.isin(mask, own), mask, 0) for mask in masks]
    others = any(mask is not None and not np.isin(mask, own).all() for mask in masks)
    legend = legend_of(known, vocabulary, colours)
    return [*legend, (OTHERS, "")] if others else legend


def _lacking(sample: Sample) -> int:
    return (sample.human is None) + (sample.pseudo is None)


def _as_evaluated(
    samples: Sequence[Sample], evaluation: Evaluation | None
) -> tuple[torch.Tensor, list[tuple[np.ndarray | None, np.ndarray | None]]]:
    """Images uint8 (N, 3, S, S) and their masks as the evaluation crops them."""
    told = data_arguments(evaluation.folder) if evaluation else {}
    size = int(told.get("image_size") or SIDE)
    resize = int(told.get("resize") or size)
    smooth: Interpolation = "bilinear" if told.get("interpolation") == "bilinear" else "bicubic"
    images = [to_pixels(Image.fromarray(s.image), resize, size, smooth) for s in samples]

    def crop(mask: np.ndarray | None) -> np.ndarray | None:
        return None if mask is None else to_part_map(mask, resize, size).numpy()

    return torch.stack(images), [(crop(one.human), crop(one.pseudo)) for one in samples]


def _part_maps(
    images: torch.Tensor,
    samples: Sequence[Sample],
    vocabulary: PartVocabulary,
    runs: Path,
    evaluation: Evaluation | None,
) -> tuple[AttackedParts | None, str]:
    """Part maps before and under attack, or why there are none."""
    if evaluation is None:
        return None, "No part maps: no model with parts was evaluated (make evaluate)."
    labels = [vocabulary.objects.index(one.key.split("/", 1)[0]) for one in samples]
    try:
        model = find_model(evaluation.model, runs, evaluation.name)
        found = attack_parts(model, images, torch.tensor(labels), EPS)
    except (MissingInputError, ValueError) as error:
        return None, f"No part maps: {error}."
    known, classes = vocabulary.num_parts, len(vocabulary.objects)
    parts = max(found.clean.max(), found.attacked.max())
    if parts > known or max(found.clean_class.max(), found.attacked_class.max()) >= classes:
        return None, f"No part maps: {model} knows other parts or classes than the labels."
    return found, ""


def _caption(split: str, evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return f"{split}."
    attack = f"PGD{STEPS}, l∞ 4/255"
    return (
        f"{split}. Part map: of {evaluation.name}, with the class that it answers; under attack: "
        f"{attack} on the class, made for this page."
    )
