"""`make browse`: a folder with pictures and a page that looks through them, without a network."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jsonargparse import auto_cli
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from datamodules.files.errors import UserError, os_errors
from datamodules.masks.part_labels import ImageParts
from pipeline.browse.claim import claim, page_folder
from pipeline.browse.drawn import Drawn
from pipeline.browse.evaluated import Evaluated, find_evaluation, open_evaluation
from pipeline.browse.outcomes import Outcome, read_outcomes
from pipeline.browse.page import page_image, page_threats, write_page
from pipeline.browse.paint import Labeller, Painter
from pipeline.browse.serve import serve as serve_folder
from pipeline.browse.subjects import LabelSource, Subject, choose_subjects, find_labels
from pipeline.report.strip_images import label_image, open_labeller

MOST_PORTS = 65535


def open_segmenter(evaluated: Evaluated, labels: LabelSource) -> tuple[Labeller | None, str]:
    """What labels the images that stage 2 did not, and why nothing does; empty if it does."""
    vocabulary = evaluated.data.vocabulary
    if not vocabulary.num_parts or labels.segmenter is None:
        return None, "" if not vocabulary.num_parts else "no segmenter: make stage1-segmenter"
    try:
        writer = open_labeller(labels.segmenter, vocabulary, labels.settings)
    except (FileNotFoundError, ValueError) as error:
        return None, str(error)
    writer.to(evaluated.evaluator.device)

    def label(key: str, name: str, image: np.ndarray) -> ImageParts:
        return label_image(writer, vocabulary, key, name, image)

    return label, ""


def draw_all(painter: Painter, subjects: Sequence[Subject], drawn: dict[str, Drawn]) -> None:
    """Draws what is not there yet, with a bar that tells the time left.

    Args:
        painter: draws one image.
        subjects: the images.
        drawn: takes what was drawn by split and key, `evaluated/a/1.jpg`; also when a stop cuts it.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    left = []
    for subject in subjects:
        if found := painter.find(subject):
            drawn[f"{subject.split}/{subject.key}"] = found
        else:
            left.append(subject)
    if not left:
        return
    with Progress(*columns, TimeRemainingColumn()) as bar:
        for subject in bar.track(left, description="images"):
            drawn[f"{subject.split}/{subject.key}"] = painter.draw(subject)


def build_page(
    evaluated: Evaluated,
    outcomes: Mapping[str, Mapping[str, Outcome]],
    subjects: Sequence[Subject],
    painter: Painter,
    notes: Sequence[str],
) -> Path:
    """Draws all images and writes the page; where it is stopped the page shows what is drawn.

    Args:
        evaluated: the evaluation.
        outcomes: recorded ones by key and threat.
        subjects: the images.
        painter: draws them into the folder of the page.
        notes: what is missing and why.
    """
    drawn: dict[str, Drawn] = {}
    threats = page_threats(evaluated.settings.get("threats") or {}, outcomes)
    try:
        draw_all(painter, subjects, drawn)
    finally:
        answers = evaluated.data.answers
        entries = [
            page_image(
                subject,
                drawn[f"{subject.split}/{subject.key}"],
                outcomes[subject.key] if subject.split == "evaluated" else {},
                answers,
            )
            for subject in subjects
            if f"{subject.split}/{subject.key}" in drawn
        ]
        page = write_page(painter.page, evaluated, entries, threats, len(subjects), notes)
    return page


def main(args: Sequence[str]) -> None:
    """`python -m pipeline browse ...`, where a bare `--serve` is enough.

    Args:
        args: name of the command and its arguments.
    """
    name, *rest = ("--serve=true" if one == "--serve" else one for one in args)
    auto_cli(browse, args=rest, as_positional=False, prog=f"python -m pipeline {name}")


@os_errors()
def browse(
    run: Path,
    images: int = 200,
    train_images: int = 40,
    threat: str | None = None,
    segment: bool = True,
    imagenet: Path | None = None,
    pinpp: Path | None = None,
    pinpp_val: Path | None = None,
    seed: int = 0,
    out: Path | None = None,
    serve: bool = False,
    port: int = 8000,
) -> None:
    """Writes a page to look through the images of an evaluation, and says how to open it.

    Args:
        run: run folder of an evaluation or of its stage 3 model, or the folder of all runs.
        images: number of evaluated images, spread over outcomes and classes.
        train_images: number of train images that people annotated and stage 2 labelled.
        threat: name of a threat of the evaluation, for the pictures under attack; a short PGD
            where none is given.
        segment: whether the segmenter labels the images that stage 2 did not.
        imagenet: folder of the images, if it is elsewhere now.
        pinpp: folder with json/, likewise.
        pinpp_val: part annotations of the evaluated images, if the evaluation had none.
        seed: of the choice of images.
        out: folder to write into, RUNS/browse/MODEL if not given.
        serve: whether to serve the page on this machine afterwards.
        port: of the server.

    Raises:
        MissingInputError: if the evaluation, its model or its images are missing.
        UserError: if a number is out of range, images or model are others than those evaluated, or
            the folder holds pictures of something else.
    """
    if images < 1 or train_images < 0:
        raise UserError(f"images={images} must be 1 or more, train_images={train_images} 0 or more")
    if not 0 <= port <= MOST_PORTS:
        raise UserError(f"port={port} must be in [0, {MOST_PORTS}]")
    folder = find_evaluation(run)
    outcomes = read_outcomes(folder)
    evaluated = open_evaluation(folder, threat, imagenet, pinpp, pinpp_val)
    labels = find_labels(evaluated)
    annotations = pinpp or evaluated.pinpp
    subjects = choose_subjects(evaluated, outcomes, labels, annotations, images, train_images, seed)
    page = page_folder(folder) if out is None else out
    shows_train = any(one.split == "train" for one in subjects)
    claim(page, evaluated, labels, annotations if shows_train else None, segment)
    labeller, why = open_segmenter(evaluated, labels) if segment else (None, "--segment=false")
    painter = Painter(evaluated, page, labels.min_score, labeller)
    written = build_page(evaluated, outcomes, subjects, painter, _notes(evaluated, labels, why))
    print(f"open {written.absolute().as_uri()} in a browser, it needs no network")
    if serve:
        serve_folder(page, port)


def _notes(evaluated: Evaluated, labels: LabelSource, why: str) -> list[str]:
    """What the page lacks, one line each."""
    notes = []
    if not evaluated.data.annotations:
        notes.append("Human parts of evaluated images: not known, give PINPP_VAL=.")
    if labels.note:
        notes.append(f"Pseudo labels of stage 2: {labels.note}.")
    if why:
        notes.append(f"Pseudo labels of images that stage 2 did not label: {why}.")
    if without := evaluated.evaluator.without_parts:
        notes.append(f"Part maps: {without}.")
    return notes
