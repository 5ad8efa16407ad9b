"""Which images are looked at, with what people and stage 2 said of their parts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.labels.label_set import checked_shards
from datamodules.masks.part_labels import ImageParts
from pipeline.browse.evaluated import Evaluated
from pipeline.browse.outcomes import Outcome, kind_of, spread
from pipeline.label_report.scan import read_rows
from pipeline.runs.manifest import Manifest
from pipeline.runs.stages import LABELS, SEGMENTER

Split = Literal["evaluated", "train"]


@dataclass(frozen=True)
class Subject:
    """One image to look at.

    Attributes:
        key: `object/file`.
        split: whether it was evaluated or trained on.
        label: true class, or group of a subset.
        object: its object category; None where the vocabulary has none of it.
        file: of the image.
        human: parts that people marked; None without annotation.
        pseudo: row of stage 2; None where there is none.
    """

    key: str
    split: Split
    label: int
    object: str | None
    file: Path
    human: ImageParts | None = None
    pseudo: ImageParts | None = None


@dataclass(frozen=True)
class LabelSource:
    """Where pseudo labels come from.

    Attributes:
        run: stage 2 run folder; None without one of these parts.
        train: folder of the images that it labelled.
        min_score: parts below it are not painted, as the model did not learn from them.
        segmenter: stage 1 run folder, for images that stage 2 did not label; None without one.
        settings: arguments of stage 2's module.
        note: why there are no labels; empty if there are.
    """

    run: Path | None = None
    train: Path | None = None
    min_score: float = 0.0
    segmenter: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


def find_labels(evaluated: Evaluated) -> LabelSource:
    """The labels that the model learnt from, else those beside it.

    Raises:
        UserError: if a manifest is damaged.
    """
    vocabulary = evaluated.data.vocabulary
    if not vocabulary.num_parts:
        return LabelSource(note="the evaluation names no parts: give PINPP=")
    model = Manifest.find(evaluated.model_run) if evaluated.model_run else None
    told = model.data_arguments if model else {}
    run = _existing(told.get("labels"), evaluated.runs / LABELS.name)
    manifest = Manifest.find(run) if run else None
    settings = manifest.model_arguments if manifest else {}
    segmenter = _existing(settings.get("segmenter"), evaluated.runs / SEGMENTER.name)
    if run is None or not (run / "vocabulary.json").is_file():
        run, note = None, f"there are no labels of stage 2: {LABELS.target}"
    elif PartVocabulary.load(run / "vocabulary.json") != vocabulary:
        run, note = None, f"the labels in {run} are of other parts than the evaluation's"
    else:
        note = ""
    imagenet = (manifest.data_arguments if manifest else {}).get("imagenet")
    train = _existing(imagenet and Path(imagenet) / "train", evaluated.data.split.parent / "train")
    least = float(told.get("score_threshold") or 0.0)
    return LabelSource(run, train, least, segmenter, settings, note)


def _existing(*places: str | Path | None) -> Path | None:
    """The first run folder, or folder of images, that is there."""
    return next((Path(one) for one in places if one is not None and Path(one).exists()), None)


def choose_subjects(
    evaluated: Evaluated,
    outcomes: Mapping[str, Mapping[str, Outcome]],
    labels: LabelSource,
    pinpp: Path | None,
    images: int,
    train_images: int,
    seed: int,
) -> list[Subject]:
    """Evaluated images over all outcomes and classes, then train images over all classes.

    Args:
        evaluated: the evaluation.
        outcomes: by key and threat.
        labels: where pseudo labels come from.
        pinpp: folder with `json/` of the train images; None without one.
        images: number of evaluated images, at most.
        train_images: number of annotated and labelled train images, at most.
        seed: of the choice.

    Raises:
        MissingInputError: if annotations or labels are missing.
        UserError: if annotations or labels are damaged.
    """
    data = evaluated.data
    label_of = dict(data.image_list)
    known = {key: (kind_of(outcomes[key]), label_of[key]) for key in outcomes if key in label_of}
    chosen = spread(known, known, seed)[:images]
    human: Mapping[str, ImageParts] = data.annotations
    train: dict[str, ImageParts] = {}
    if train_images and labels.run and labels.train and pinpp is not None:
        train = _train_parts(evaluated, labels, pinpp)
    kinds = {key: (parts.label,) for key, parts in train.items()}
    trained = spread(train, kinds, seed)[:train_images]
    same = labels.train is not None and labels.train.resolve() == data.split.resolve()
    rows = _rows(labels, [*(chosen if same else ()), *trained])
    subjects = [
        Subject(
            key,
            "evaluated",
            label_of[key],
            _object(evaluated, key, label_of[key]),
            data.split / key,
            human.get(key),
            rows.get(key) if same else None,
        )
        for key in chosen
    ]
    for key in trained:
        assert labels.train is not None
        parts = train[key]
        name = data.vocabulary.objects[parts.label]
        answer = _answer(evaluated, parts.label)
        file = labels.train / key
        subjects.append(Subject(key, "train", answer, name, file, parts, rows.get(key)))
    return subjects


def _train_parts(evaluated: Evaluated, labels: LabelSource, pinpp: Path) -> dict[str, ImageParts]:
    """Annotated train images that stage 2 labelled, of classes that were evaluated."""
    assert labels.run is not None
    vocabulary = evaluated.data.vocabulary
    shards = checked_shards(labels.run, vocabulary.objects).values()
    labelled = {key for table in shards for key in table["key"].to_pylist()}
    return {
        parts.key: parts
        for parts in read_annotations(pinpp, vocabulary, labels.train)
        if parts.key in labelled and _answer(evaluated, parts.label) >= 0
    }


def _rows(labels: LabelSource, keys: list[str]) -> dict[str, ImageParts]:
    if labels.run is None or not keys:
        return {}
    wanted = set(keys)
    shards = checked_shards(labels.run).items()
    files = [file for file, table in shards if not wanted.isdisjoint(table["key"].to_pylist())]
    return read_rows(files, keys)


def _answer(evaluated: Evaluated, label: int) -> int:
    groups = evaluated.data.groups
    return label if groups is None else int(groups[label])


def _object(evaluated: Evaluated, key: str, label: int) -> str | None:
    """The object category; within a subset the label is a group, so the folder tells it."""
    objects = evaluated.data.vocabulary.objects
    if evaluated.data.groups is None:
        return objects[label]
    name = key.partition("/")[0]
    return name if name in objects else None
