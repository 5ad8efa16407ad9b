"""Which images the report opens with: val ones that stage 1 labels for it, or train ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.files.errors import UserError
from datamodules.images.image_files import read_image
from datamodules.masks.part_labels import ImageParts, PartInstance
from datamodules.masks.part_masks import composite
from modules.pseudo_label_writer import PseudoLabelWriter, encode_record
from pipeline.drawing.samples import Sample
from pipeline.report.reading.runs import Runs, data_arguments
from pipeline.runs.manifest import Manifest

COUNT = 3
TRAIN = "Train images, where possible none that the segmenter was trained on"
VAL = "Val images, none trained on; pseudo labels as the segmenter gives them for this page"


@dataclass(frozen=True)
class StripImages:
    """Images to open with.

    Attributes:
        samples: With their human and pseudo parts.
        split: Which images they are, for the caption.
        note: What could not be shown and why; empty if nothing is missing.
    """

    samples: Sequence[Sample]
    split: str
    note: str = ""


def strip_images(
    train: Sequence[Sample],
    vocabulary: PartVocabulary,
    runs: Runs,
    val: Path,
    annotations: Path | None,
    score_threshold: float,
) -> StripImages:
    """Annotated val images where there are any, else train images.

    Args:
        train: Train images.
        vocabulary: Of the parts.
        runs: What the runs folder holds.
        val: Folder of val images.
        annotations: Folder with `json/` of val images; None for what a run was given.
        score_threshold: Pseudo parts below this score are not painted.
    """
    folder = annotations or _annotations(runs)
    if folder is None:
        return StripImages(train, TRAIN)
    try:
        samples = pick_val_samples(val, folder, vocabulary, COUNT)
    except (FileNotFoundError, ValueError) as error:
        return StripImages(train, TRAIN, f"No val images: {error}.")
    try:
        manifest = Manifest.find(runs.pseudo_labels)
        settings = manifest.model_arguments if manifest else {}
        labelled = label_samples(samples, vocabulary, runs.segmenter, settings, score_threshold)
    except (FileNotFoundError, ValueError) as error:
        return StripImages(samples, "Val images", f"No pseudo labels: {error}.")
    return StripImages(labelled, VAL)


def _annotations(runs: Runs) -> Path | None:
    """Annotations of val images that an evaluation or the segmenter was given, if still there."""
    told = [data_arguments(one.folder).get("part_annotations") for one in runs.evaluations]
    folders = [Path(path) for path in (*told, runs.segmenter_data.get("pinpp_val")) if path]
    return next((path for path in folders if (path / "json").is_dir()), None)


def pick_val_samples(
    val: Path, annotations: Path, vocabulary: PartVocabulary, count: int
) -> list[Sample]:
    """One annotated image of each of a few objects, spread over the vocabulary.

    Args:
        val: Folder of val images, `object/file`.
        annotations: Folder with `json/` of val images.
        vocabulary: Of the parts.
        count: At most so many images.

    Raises:
        MissingInputError: If there are no annotations, or an image of them does not exist.
        UserError: If an annotation or an image cannot be read.
    """
    first: dict[int, ImageParts] = {}
    for parts in read_annotations(annotations, vocabulary, val):
        if parts.instances:
            first.setdefault(parts.label, parts)
    labels = sorted(first)
    places = np.unique(np.linspace(0, len(labels) - 1, min(count, len(labels))).astype(int))
    samples = []
    for parts in (first[labels[place]] for place in places):
        image = np.asarray(read_image(val / parts.key))
        if image.shape[:2] != (parts.height, parts.width):
            size = f"{image.shape[0]}x{image.shape[1]}"
            wanted = f"{parts.height}x{parts.width}"
            raise UserError(
                f"{val / parts.key} is {size} (height x width), its annotation {wanted}: use the "
                "images that were annotated"
            )
        samples.append(Sample(parts.key, image, composite(parts, vocabulary.inclusions), None))
    return samples


def label_samples(
    samples: Sequence[Sample],
    vocabulary: PartVocabulary,
    segmenter: Path,
    settings: Mapping[str, Any],
    score_threshold: float,
) -> list[Sample]:
    """The same images with pseudo parts, made as stage 2 makes them, on the CPU.

    Args:
        samples: Images, of known objects.
        vocabulary: That the segmenter was trained for.
        segmenter: Run folder of stage 1.
        settings: Arguments of stage 2's module; those that are not known to it are left out.
        score_threshold: Parts below this score are not painted.

    Raises:
        MissingInputError: If there is no segmenter.
        UserError: If it cannot be loaded or was trained for another vocabulary.
    """
    writer = open_labeller(segmenter, vocabulary, settings)
    labelled = []
    for sample in samples:
        parts = label_image(
            writer, vocabulary, sample.key, sample.key.split("/", 1)[0], sample.image
        )
        parts = parts.confident(score_threshold)
        pseudo = None if parts.error else composite(parts, vocabulary.inclusions)
        labelled.append(replace(sample, pseudo=pseudo))
    return labelled


def open_labeller(
    segmenter: Path, vocabulary: PartVocabulary, settings: Mapping[str, Any]
) -> PseudoLabelWriter:
    """What labels images as stage 2 does; arguments and errors as of `label_samples`."""
    known = ("category_filter", "max_instances", "detections_per_part", "rpn_proposals", "flip_tta")
    told = {name: settings[name] for name in known if name in settings}
    return PseudoLabelWriter(segmenter, vocabulary.object_parts, **told).eval()


def label_image(
    writer: PseudoLabelWriter, vocabulary: PartVocabulary, key: str, name: str, image: np.ndarray
) -> ImageParts:
    """The pseudo labels of one image.

    Args:
        writer: what `open_labeller` gave, on any device.
        vocabulary: that the segmenter was trained for.
        key: of the image.
        name: its object category.
        image: pixels, uint8 (H, W, 3).
    """
    batch = {
        "image": [torch.from_numpy(image.copy()).permute(2, 0, 1).to(writer.device)],
        "label": torch.tensor([vocabulary.objects.index(name)], device=writer.device),
        "key": [key],
        "error": [""],
    }
    with torch.inference_mode():
        (record,) = writer.predict_step(batch, 0)
    row = encode_record(record)
    found = tuple(PartInstance(**one) for one in row.pop("instances"))
    return ImageParts(**row, instances=found)
