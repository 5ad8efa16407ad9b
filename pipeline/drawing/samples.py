"""Which images the report and the overview show, with their human and pseudo part masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.dataset as arrow_dataset

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations, split_annotations
from datamodules.images.image_files import read_image
from datamodules.images.imagenet_folder import list_images
from datamodules.labels.pseudo_labels import finished_shards, from_table
from datamodules.masks.part_labels import ImageParts
from datamodules.masks.part_masks import composite


@dataclass(frozen=True)
class Sample:
    """One train image with its part masks.

    Attributes:
        key: `object/file`.
        image: Pixels, uint8 (H, W, 3).
        human: Human part labels, int32 (H, W), 0 = background; None without annotation.
        pseudo: Pseudo part labels, likewise; None where stage 2 has no row of the image.
    """

    key: str
    image: np.ndarray
    human: np.ndarray | None
    pseudo: np.ndarray | None


def _read_rows(run: Path, keys: Sequence[str]) -> dict[str, ImageParts]:
    """Reads the pseudo labels of a few images without loading the others."""
    files = [str(path) for path in finished_shards(run)]
    if not files:
        return {}
    wanted = arrow_dataset.field("key").isin(list(keys))
    table = arrow_dataset.dataset(files, format="parquet").to_table(filter=wanted)
    return {row.key: row for row in from_table(table)}


def _choose_keys(
    vocabulary: PartVocabulary,
    train: Path,
    annotations: Sequence[ImageParts],
    num_objects: int,
    unannotated: int,
    seed: int,
) -> list[str]:
    held_out: dict[int, str] = {}
    # Held-out images first: the segmenter has not been trained on them
    for parts in (*split_annotations(list(annotations), "val", seed), *annotations):
        if parts.instances:
            held_out.setdefault(parts.label, parts.key)
    known = {parts.key for parts in annotations}
    free: dict[int, list[str]] = {}
    for key, label in list_images(train) if unannotated else ():
        if key not in known and len(free.setdefault(label, [])) < unannotated:
            free[label].append(key)
    labels = sorted(held_out)
    spread = np.unique(np.linspace(0, len(labels) - 1, min(num_objects, len(labels))).astype(int))
    keys = []
    for label in (labels[index] for index in spread):
        keys += [held_out[label], *free.get(label, [])]
    return keys


def pick_samples(
    imagenet: Path,
    pinpp: Path,
    vocabulary: PartVocabulary,
    labels: Path | None = None,
    *,
    num_objects: int = 10,
    unannotated: int = 1,
    score_threshold: float = 0.0,
    seed: int = 0,
) -> list[Sample]:
    """Picks train images of objects spread over the vocabulary.

    Of each object: one annotated image (from the held-out tenth where there is one, which the
    segmenter was not trained on), then images without annotation.

    Args:
        imagenet: Folder with `train/`.
        pinpp: Folder with `json/`.
        vocabulary: Vocabulary of the labels.
        labels: Run folder of stage 2, if there is one.
        num_objects: At most so many objects.
        unannotated: Images without annotation per object.
        score_threshold: Pseudo instances below this score are not painted.
        seed: Seed of the 9:1 split, the one stage 1 was trained with.

    Returns:
        Samples, grouped by object; unreadable images are left out.

    Raises:
        MissingInputError: If a folder is missing.
        UserError: If an annotation file is broken.
    """
    train = imagenet / "train"
    annotations = read_annotations(pinpp, vocabulary, train)
    human = {parts.key: parts for parts in annotations}
    keys = _choose_keys(vocabulary, train, annotations, num_objects, unannotated, seed)
    pseudo = _read_rows(labels, keys) if labels is not None else {}
    samples = []
    for key in keys:
        try:
            image = np.asarray(read_image(train / key))
        except ValueError:
            continue
        masks: list[np.ndarray | None] = []
        for parts in (human.get(key), pseudo.get(key)):
            usable = parts is not None and (parts.height, parts.width) == image.shape[:2]
            if parts is None or not usable or parts.error:
                masks.append(None)
            else:
                masks.append(composite(parts.confident(score_threshold), vocabulary.inclusions))
        samples.append(Sample(key, image, masks[0], masks[1]))
    return samples
