"""How good pseudo labels are: mean IoU of their composites against annotations."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.files.errors import UserError
from datamodules.files.json_files import read_json, write_json
from datamodules.labels.label_set import read_labels
from datamodules.masks.part_labels import ImageParts
from datamodules.masks.part_masks import composite
from modules.metrics.part_iou import iou_by_part, pixel_counts

QUALITY, FORMAT_VERSION = "quality.json", 2


@dataclass(frozen=True)
class LabelQuality:
    """How good a set of pseudo labels is, `quality.json`.

    Attributes:
        miou: mean IoU with annotations that were kept aside, in [0, 1], see `pseudo_label_miou`.
    """

    miou: float

    @classmethod
    def find(cls, run: Path) -> Self | None:
        """What a stage 2 run folder says, None where nothing was measured.

        Raises:
            UserError: if the file is damaged or of another format version.
        """
        path = run / QUALITY
        if not path.is_file():
            return None
        content = read_json(path, "delete it and measure the labels again")
        if content.pop("format_version", None) != FORMAT_VERSION or set(content) != {
            field.name for field in fields(cls)
        }:
            raise UserError(f"{path} is of another version: delete it and run make demo again")
        return cls(**content)

    def write(self, run: Path) -> None:
        """Writes the file of a stage 2 run folder."""
        write_json(run / QUALITY, {"format_version": FORMAT_VERSION, **asdict(self)})


def pseudo_label_miou(
    labels: Iterable[ImageParts],
    truth: Sequence[ImageParts],
    inclusions: Iterable[tuple[int, int]],
    min_score: float = 0.0,
) -> float:
    """Mean over part classes of the IoU of composite maps, pixels pooled over all images.

    Args:
        labels: pseudo labels; images without truth are ignored, an image with an error counts
            as one without parts.
        truth: annotations to compare with.
        inclusions: pairs (part id, id of the whole that includes it).
        min_score: pseudo instances with a lower score are left out.

    Returns:
        Mean IoU in [0, 1] over the part classes that occur in the truth, without background.

    Raises:
        UserError: if the truth shows no part, or one of its images has no row or another size.
    """
    row_of = {row.key: row for row in labels}
    relations = tuple(inclusions)
    size = 1 + max((part.part for row in truth for part in row.instances), default=0)
    counts = np.zeros((3, size), np.int64)
    for image in truth:
        if image.key not in row_of:
            raise UserError(
                f"{image.key} is not among the labelled images: compare with annotations of those, "
                "or label it, too, in a stage 2 run with another NAME="
            )
        target = composite(image, relations)
        guess = _composite(row_of[image.key], image, relations, min_score)
        guess[guess >= size] = 0  # a class that the truth never shows is not averaged over
        counts += pixel_counts(target, guess, size)
    iou = iou_by_part(*counts)
    if np.isnan(iou).all():
        raise UserError("the truth shows no part, so there is nothing to compare with")
    return float(np.nanmean(iou))


def _composite(
    row: ImageParts, image: ImageParts, inclusions: Sequence[tuple[int, int]], min_score: float
) -> np.ndarray:
    if row.error:
        return np.zeros((image.height, image.width), np.int32)
    if (row.height, row.width) != (image.height, image.width):
        raise UserError(
            f"{row.key} is {row.height}x{row.width} in the labels and {image.height}x{image.width} "
            "in the annotations (height x width): they are of different images"
        )
    return composite(row.confident(min_score), inclusions)


def label_quality(
    run: Path, truth: Path, imagenet: Path | None = None, min_score: float = 0.0
) -> dict[str, Any]:
    """Figures of one stage 2 run folder.

    Args:
        run: stage 2 run folder with `labels/` and `vocabulary.json`.
        truth: folder with `json/<object>.json`.
        imagenet: when given, the annotated images must exist in its `train/`.
        min_score: pseudo instances with a lower score are left out.

    Returns:
        `miou`, and the counts `images`, `compared`, `labelled` (with at least one part) and
        `errors`.

    Raises:
        MissingInputError: if labels, vocabulary or truth are missing.
        UserError: if they do not fit each other.
    """
    vocabulary = PartVocabulary.load(run / "vocabulary.json")
    rows = read_labels(run, vocabulary.objects)
    annotations = read_annotations(truth, vocabulary, imagenet / "train" if imagenet else None)
    return {
        "miou": pseudo_label_miou(rows, annotations, vocabulary.inclusions, min_score),
        "images": len(rows),
        "compared": len(annotations),
        "labelled": sum(bool(row.confident(min_score).instances) for row in rows),
        "errors": sum(bool(row.error) for row in rows),
    }


def main(
    labels: Path | list[Path],
    truth: Path,
    imagenet: Path | None = None,
    min_score: float = 0.0,
) -> None:
    """Mean IoU of pseudo labels against annotations, printed as JSON by run folder.

    Args:
        labels: run folders of stage 2.
        truth: folder with json/.
        imagenet: check that the annotated images exist in its train/.
        min_score: leave out weaker instances.

    Raises:
        MissingInputError: if labels, vocabulary or truth are missing.
        UserError: if they do not fit each other.
    """
    runs = [labels] if isinstance(labels, Path) else labels
    figures = {str(run): label_quality(run, truth, imagenet, min_score) for run in runs}
    print(json.dumps(figures, indent=1))
