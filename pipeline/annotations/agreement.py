"""How far two sets of part annotations agree (PartImageNet++ Fig. S1)."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from scipy.optimize import linear_sum_assignment

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.errors import UserError
from datamodules.masks.part_labels import ImageParts


@dataclass(frozen=True)
class ImageAgreement:
    """Two annotations of one image.

    Attributes:
        key: `object/file`.
        object_iou: IoU of the unions of all parts, 0 to 1.
        pairs: part id of A, part id of B and IoU of every two masks that overlap and are partners
            in the assignment with the largest sum of IoU; names play no role.
        matched: share of all masks of both that have a partner, 0 to 1.
    """

    key: str
    object_iou: float
    pairs: tuple[tuple[int, int, float], ...]
    matched: float

    @property
    def mask_iou(self) -> float:
        """Mean IoU of the partners, 0 without any."""
        return float(np.mean([iou for _, _, iou in self.pairs])) if self.pairs else 0.0

    @property
    def quality(self) -> float:
        """`mask_iou * matched`, by which the gallery ranks images: parts that one lacks cost."""
        return self.mask_iou * self.matched


@dataclass(frozen=True)
class ObjectAgreement:
    """Two annotations of one object category; pairs of values are of A and of B.

    Attributes:
        name: object category.
        parts: names of its parts.
        images: how many images each annotates.
        common: the images that both annotate.
        masks: masks an image, over the common images, or over each one's own if there are none.
        covered: share of an image's pixels that lie in a part, 0 to 1, over the same images.
    """

    name: str
    parts: tuple[list[str], list[str]]
    images: tuple[int, int]
    common: tuple[ImageAgreement, ...]
    masks: tuple[float, float]
    covered: tuple[float, float]

    def mean(self, figure: str) -> float | None:
        """Mean of `object_iou`, `mask_iou` or `matched` over the common images."""
        values = [getattr(one, figure) for one in self.common]
        return float(np.mean(values)) if values else None

    def partners(self) -> list[tuple[int, int, int, float]]:
        """Part ids of A and B that were partners, how often, mean IoU; most frequent first."""
        ious = defaultdict(list)
        for image in self.common:
            for part_a, part_b, iou in image.pairs:
                ious[part_a, part_b].append(iou)
        counts = Counter({pair: len(values) for pair, values in ious.items()})
        return [(*pair, n, float(np.mean(ious[pair]))) for pair, n in counts.most_common()]


def covered_fraction(parts: ImageParts) -> float:
    """Share of an image's pixels that lie in any part, 0 to 1."""
    if not parts.instances:
        return 0.0
    return float(coco_mask.area(coco_mask.merge(_rles(parts)))) / (parts.height * parts.width)


def compare_images(a: ImageParts, b: ImageParts) -> ImageAgreement:
    """Compares two annotations of one image.

    Raises:
        UserError: if they state different image sizes.
    """
    if (a.height, a.width) != (b.height, b.width):
        raise UserError(
            f"{a.key} is {a.height}x{a.width} in one annotation and {b.height}x{b.width} in the "
            "other (height x width): they are of different images"
        )
    if not a.instances or not b.instances:
        return ImageAgreement(a.key, 0.0, (), 0.0)
    rles = _rles(a), _rles(b)
    union_a, union_b = (coco_mask.merge(one) for one in rles)
    ious = coco_mask.iou(*rles, [False] * len(rles[1]))
    pairs = tuple(
        (a.instances[i].part, b.instances[j].part, float(ious[i, j]))
        for i, j in zip(*linear_sum_assignment(ious, maximize=True), strict=True)
        if ious[i, j] > 0
    )
    share = 2 * len(pairs) / (len(a.instances) + len(b.instances))
    whole = float(coco_mask.iou([union_a], [union_b], [False])[0, 0])
    return ImageAgreement(a.key, whole, pairs, share)


def compare_objects(
    annotations: tuple[Sequence[ImageParts], Sequence[ImageParts]],
    vocabularies: tuple[PartVocabulary, PartVocabulary],
) -> tuple[list[ObjectAgreement], list[str]]:
    """Compares every object category that both annotate.

    Args:
        annotations: images with parts, of A and of B.
        vocabularies: their vocabularies, with the same objects.

    Returns:
        One record an object, by name, and a line for each image that could not be compared.

    Raises:
        UserError: if no object category is annotated by both.
    """
    by_label: list[dict[int, dict[str, ImageParts]]] = [defaultdict(dict), defaultdict(dict)]
    for side, images in enumerate(annotations):
        for image in images:
            by_label[side][image.label][image.key] = image
    objects, problems = [], []
    for label in sorted(set(by_label[0]) & set(by_label[1])):
        a, b = (side[label] for side in by_label)
        common = []
        for key in sorted(set(a) & set(b)):
            try:
                common.append(compare_images(a[key], b[key]))
            except ValueError as error:
                problems.append(str(error))
        keys = [one.key for one in common]
        used = [[side[key] for key in keys or side] for side in (a, b)]
        masks = [_mean(len(image.instances) for image in images) for images in used]
        covered = [_mean(map(covered_fraction, images)) for images in used]
        parts = [
            [words.parts[part - 1].rpartition(":")[2] for part in words.parts_of(label)]
            for words in vocabularies
        ]
        name = vocabularies[0].objects[label]
        objects.append(
            ObjectAgreement(
                name,
                (parts[0], parts[1]),
                (len(a), len(b)),
                tuple(common),
                (masks[0], masks[1]),
                (covered[0], covered[1]),
            )
        )
    if not objects:
        raise UserError(
            "no object category is annotated by both: give folders whose json/ files have the "
            "same names (an import of PartImageNet needs --naming object)"
        )
    return objects, problems


def overall(objects: Sequence[ObjectAgreement]) -> dict[str, Any]:
    """Figures over all common images; None where there are no common images."""
    common = [image for one in objects for image in one.common]
    means = {
        figure: float(np.mean([getattr(image, figure) for image in common])) if common else None
        for figure in ("object_iou", "mask_iou", "matched")
    }
    return {
        "objects": len(objects),
        "objects_with_common_images": sum(bool(one.common) for one in objects),
        "common_images": len(common),
        "parts": [sum(len(one.parts[side]) for one in objects) for side in (0, 1)],
        **means,
    }


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _rles(parts: ImageParts) -> list[dict[str, Any]]:
    size = [parts.height, parts.width]
    return [{"size": size, "counts": one.rle} for one in parts.instances]
