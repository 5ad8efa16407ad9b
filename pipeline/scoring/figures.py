"""Figures of a segmenter's results: AP, best overlap, IoU of composites."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from pycocotools import mask as coco_mask

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.errors import UserError
from datamodules.masks.part_labels import ImageParts, PartInstance
from datamodules.masks.part_masks import composite
from modules.metrics.coco_ap import AveragePrecision, CocoAP, MaskMetrics
from modules.metrics.coco_matching import IoUType
from pipeline.label_report.matching import part_instances
from pipeline.validation.category_tables import Row, part_rows
from pipeline.validation.composite_iou import CompositeIoU, mean_iou

SUFFIXES = ("", "_filtered")
IOU_TYPES: tuple[IoUType, ...] = ("segm", "bbox")
ONE_CATEGORY = 1


@dataclass(frozen=True)
class SegmenterScores:
    """What is measured of results.

    Attributes:
        values: figures in [0, 1], -1 where the truth has nothing of the kind, under the names of
            stage 1's metrics (`segm_AP`, `segm_AP50_filtered`, `semantic_mIoU`, ...); `bbox_*` of
            boxes, `agnostic_segm_*` and `agnostic_bbox_*` without categories,
            `best_overlap_mIoU` and `best_overlap_mIoU_by_category`; and counts.
        parts: a row for every part category, see `part_rows`, with `best_overlap`.
    """

    values: dict[str, float]
    parts: list[Row]


def score_results(
    truth: Sequence[ImageParts],
    found: Mapping[str, tuple[PartInstance, ...]],
    vocabulary: PartVocabulary,
    *,
    named: bool,
    min_score: float = 0.0,
) -> SegmenterScores:
    """Scores the results of all annotated images.

    Args:
        truth: the annotated images.
        found: masks by key of the image; an image without any has no detection.
        vocabulary: numbers of the parts.
        named: whether the masks have categories; without, what needs them is not measured.
        min_score: weaker masks are not painted in composites. AP and best overlap count all.

    Raises:
        UserError: if the truth shows no part.
    """
    if not any(image.instances for image in truth):
        raise UserError("the annotations show no part, so there is nothing to score")
    images = [(one, replace(one, instances=found.get(one.key, ()))) for one in truth]
    overlaps: dict[int, list[float]] = {}
    for image, results in images:
        for one, iou in zip(image.instances, best_overlaps(image, results), strict=True):
            overlaps.setdefault(one.part, []).append(float(iou))
    values, rows = (
        _by_category(images, vocabulary, min_score)
        if named
        else ({}, _plain_rows(vocabulary, truth))
    )
    values |= _of_any_category(images)
    by_part = {part: sum(each) / len(each) for part, each in overlaps.items()}
    for part, row in enumerate(rows, start=1):
        row["best_overlap"] = by_part.get(part)
    every = [one for each in overlaps.values() for one in each]
    values["best_overlap_mIoU"] = sum(every) / len(every)
    values["best_overlap_mIoU_by_category"] = mean_iou(by_part)
    values |= {"images": len(truth), "masks": len(every)}
    values["results"] = sum(len(results.instances) for _, results in images)
    values["images_without_results"] = sum(not results.instances for _, results in images)
    return SegmenterScores(values, rows)


def _by_category(
    images: Sequence[tuple[ImageParts, ImageParts]], vocabulary: PartVocabulary, min_score: float
) -> tuple[dict[str, float], list[Row]]:
    """AP and IoU of composites, without and with the filter, from pairs of truth and results."""
    metrics = {kind: CocoAP(SUFFIXES, kind) for kind in IOU_TYPES}
    composites = CompositeIoU(SUFFIXES, vocabulary.num_parts)
    for image, results in images:
        by_suffix = dict(zip(SUFFIXES, (results, of_own_object(results, vocabulary)), strict=True))
        _match(metrics, image.key, image, by_suffix)
        guesses = {
            suffix: composite(parts.confident(min_score), vocabulary.inclusions)
            for suffix, parts in by_suffix.items()
        }
        composites.update(image.key, composite(image, vocabulary.inclusions), guesses)
    values: dict[str, float] = {}
    computed = {kind: metric.compute() for kind, metric in metrics.items()}
    for kind, by_name in computed.items():
        for suffix in SUFFIXES:
            values |= _named_figures(by_name[suffix], f"{kind}_", suffix)
    iou = composites.compute()
    values |= {f"semantic_mIoU{suffix}": mean_iou(iou[suffix]) for suffix in SUFFIXES}
    return values, part_rows(vocabulary, computed["segm"], iou)


def _of_any_category(images: Sequence[tuple[ImageParts, ImageParts]]) -> dict[str, float]:
    """AP where all masks are of one category, as of COCOeval with `useCats = 0`."""
    metrics = {kind: CocoAP(("",), kind) for kind in IOU_TYPES}
    for image, results in images:
        _match(metrics, image.key, _of_one_category(image), {"": _of_one_category(results)})
    values: dict[str, float] = {}
    for kind, metric in metrics.items():
        values |= _named_figures(metric.compute()[""], f"agnostic_{kind}_", "")
    return values


def best_overlaps(truth: ImageParts, found: ImageParts) -> np.ndarray:
    """Best IoU over all found masks, of any category, of each true mask: `(N,)` in [0, 1]."""
    if not truth.instances or not found.instances:
        return np.zeros(len(truth.instances))
    size = [truth.height, truth.width]
    true, guessed = (
        [{"size": size, "counts": one.rle} for one in image.instances] for image in (truth, found)
    )
    return np.asarray(coco_mask.iou(guessed, true, [0] * len(true))).max(axis=0)


def of_own_object(parts: ImageParts, vocabulary: PartVocabulary) -> ImageParts:
    """The category filter: the image without parts that cannot occur on its object."""
    allowed = vocabulary.object_parts[parts.label]
    kept = tuple(one for one in parts.instances if allowed[one.part])
    return replace(parts, instances=kept)


def _of_one_category(parts: ImageParts) -> ImageParts:
    same = tuple(replace(one, part=ONE_CATEGORY) for one in parts.instances)
    return replace(parts, instances=same)


def _match(
    metrics: Mapping[IoUType, CocoAP],
    key: str,
    truth: ImageParts,
    found: Mapping[str, ImageParts],
) -> None:
    for kind, metric in metrics.items():
        detections = {name: part_instances(parts, kind) for name, parts in found.items()}
        metric.add(key, part_instances(truth, kind, found=False), detections)


def _named_figures(metrics: MaskMetrics, prefix: str, suffix: str) -> dict[str, float]:
    summary: AveragePrecision = metrics.summary()
    return {f"{prefix}{name}{suffix}": value for name, value in asdict(summary).items()}


def _plain_rows(vocabulary: PartVocabulary, truth: Sequence[ImageParts]) -> list[Row]:
    """Rows of `part_rows` without figures that need categories."""
    rows: list[Row] = []
    shown = [[one.part for one in image.instances] for image in truth]
    masks = Counter(part for parts in shown for part in parts)
    images = Counter(part for parts in shown for part in set(parts))
    for part, name in enumerate(vocabulary.parts, start=1):
        owner, _, short = name.rpartition(":")
        row: Row = {"object": owner, "part": short, "images": images[part]}
        rows.append(row | {"masks": masks[part]})
    return rows
