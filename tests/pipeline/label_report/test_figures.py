"""Figures of the label report against dense, plain references."""

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchmetrics.functional.classification import binary_calibration_error

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.masks.part_labels import ImageParts, PartInstance, decode_masks, encode_mask
from pipeline.label_report.compare import ImageQuality, LabelComparison
from pipeline.label_report.matching import PartMatches
from pipeline.label_report.pictures import choose_images
from pipeline.label_report.scan import LabelTotals
from pipeline.label_report.summary import summarise
from pipeline.labelling.quality import pseudo_label_miou

SIZE = (24, 30)
VOCABULARY = PartVocabulary(
    ("ant", "bee"), ("ant:head", "ant:leg", "bee:head", "bee:wing"), ((2, 1),)
)
THRESHOLDS = (0.0, 0.3, 0.6, 0.9)


def rectangle(rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    top, left = rng.integers(0, 14, 2)
    height, width = rng.integers(4, 12, 2)
    mask[top : top + height, left : left + width] = True
    return mask


def image(key: str, label: int, parts: list[tuple[int, np.ndarray, float]]) -> ImageParts:
    instances = tuple(
        PartInstance(part, encode_mask(mask), (0.0, 0.0, 1.0, 1.0), score)
        for part, mask, score in parts
    )
    return ImageParts(key, label, *SIZE, instances)


def pairs(count: int = 30, seed: int = 0) -> list[tuple[ImageParts, ImageParts]]:
    """(human, pseudo) images: shifted copies of the human parts, and some made up."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        label = number % 2
        human, pseudo = [], []
        for _ in range(rng.integers(0, 5)):
            part, mask = int(rng.integers(1, 3)) + 2 * label, rectangle(rng)
            human.append((part, mask, 1.0))
            shifted = np.roll(mask, rng.integers(-2, 3, 2), (0, 1))
            # scores as Parquet stores them
            pseudo.append((part, shifted, float(np.float32(rng.uniform(0.2, 1)))))
        for _ in range(rng.integers(0, 4)):
            score = float(np.float32(rng.uniform(0, 0.7)))
            pseudo.append((int(rng.integers(1, 5)), rectangle(rng), score))
        key = f"{VOCABULARY.objects[label]}/{number}.jpg"
        made.append((image(key, label, human), image(key, label, pseudo)))
    return made


def compared(
    images: list[tuple[ImageParts, ImageParts]], min_score: float = 0.3
) -> LabelComparison:
    comparison = LabelComparison(VOCABULARY, THRESHOLDS, min_score)
    for human, pseudo in images:
        assert comparison.add(pseudo, human) == ""
    return comparison


def plain_matches(images: list[tuple[ImageParts, ImageParts]]) -> tuple[list[float], list[bool]]:
    """Scores and outcomes at IoU 0.5, greedily by falling score, on dense masks."""
    scores, right = [], []
    for human, pseudo in images:
        truths, found = decode_masks(human) > 0, decode_masks(pseudo) > 0
        free = set(range(len(truths)))
        for index in np.argsort([-one.score for one in pseudo.instances], kind="stable"):
            one = pseudo.instances[index]
            ious = {
                place: (truths[place] & found[index]).sum() / (truths[place] | found[index]).sum()
                for place in free
                if human.instances[place].part == one.part
            }
            best = max(ious, key=lambda place: ious[place], default=None)
            hit = best is not None and ious[best] >= 0.5
            if hit and best is not None:
                free.remove(best)
            scores.append(one.score)
            right.append(hit)
    return scores, right


def test_calibration_equals_dense_counting_and_torchmetrics() -> None:
    images = pairs()
    bins, error = compared(images).matches.calibration(bins=10)
    scores, right = (np.array(values) for values in plain_matches(images))
    assert 0.1 < right.mean() < 0.9
    for place, one in enumerate(bins):
        inside = (scores > place / 10) & (scores <= (place + 1) / 10)
        assert one.count == inside.sum()
        if one.count:
            assert one.score == pytest.approx(scores[inside].mean())
            assert one.precision == pytest.approx(right[inside].mean())
    expected = binary_calibration_error(
        torch.from_numpy(scores), torch.from_numpy(right).long(), n_bins=10, norm="l1"
    )
    assert error == pytest.approx(float(expected), abs=1e-6)


def test_average_precision_equals_one_cocoeval_of_all_images() -> None:
    images = pairs()
    sides = []
    for side in range(2):
        coco = COCO()
        entries = [
            {
                "image_id": number,
                "category_id": one.part,
                "segmentation": {"size": list(SIZE), "counts": one.rle},
                "area": float(mask.sum()),
                "iscrowd": 0,
                "score": one.score,
            }
            for number, pair in enumerate(images, start=1)
            for one, mask in zip(pair[side].instances, decode_masks(pair[side]), strict=True)
        ]
        coco.dataset = {
            "images": [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in range(1, 31)],
            "annotations": [entry | {"id": i} for i, entry in enumerate(entries, start=1)],
            "categories": [{"id": part} for part in range(1, 5)],
        }
        coco.createIndex()
        sides.append(coco)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(*sides, iouType="segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = compared(images).matches.average_precision()
    assert sorted(values) == [1, 2, 3, 4]
    assert np.mean([ap for ap, _ in values.values()]) == pytest.approx(evaluation.stats[0])
    assert np.mean([ap50 for _, ap50 in values.values()]) == pytest.approx(evaluation.stats[1])


@pytest.mark.parametrize("place", range(len(THRESHOLDS)))
def test_miou_and_coverage_of_each_threshold_equal_dense_counting(place: int) -> None:
    images = pairs()
    row = summarise(LabelTotals.of(VOCABULARY, THRESHOLDS), compared(images))["thresholds"][place]
    humans, pseudos = zip(*images, strict=True)
    least = THRESHOLDS[place]
    assert row["min_score"] == least
    expected = pseudo_label_miou(pseudos, humans, VOCABULARY.inclusions, least)
    assert row["miou"] == pytest.approx(expected)
    iou, recall = [], []
    for human, pseudo in images:
        if human.instances:
            actual = decode_masks(human).any(axis=0)
            kept = replace(
                pseudo, instances=tuple(one for one in pseudo.instances if one.score >= least)
            )
            found = decode_masks(kept).any(axis=0)
            iou.append((actual & found).sum() / (actual | found).sum())
            recall.append((actual & found).sum() / actual.sum())
    assert 0 < len(iou) < len(images)
    assert row["coverage"] == pytest.approx(np.mean(iou))
    assert row["recall"] == pytest.approx(np.mean(recall))


def test_tables_by_object_and_part() -> None:
    images = pairs()
    comparison = compared(images)
    totals = LabelTotals.of(VOCABULARY, THRESHOLDS)
    totals.images += 15
    figures = summarise(totals, comparison)
    for label, row in enumerate(figures["objects"]):
        mine = [one for one in comparison.images if one.label == label]
        assert row["compared"] == len(mine) == 15
        covered = [one.coverage for one in mine if one.coverage is not None]
        assert row["coverage"] == pytest.approx(np.mean(covered))
        parts = figures["parts"][2 * label : 2 * label + 2]
        assert row["AP"] == pytest.approx(np.mean([part["AP"] for part in parts]))
        assert row["miou"] == pytest.approx(np.mean([part["iou"] for part in parts]))
    humans = [one.part for human, _ in images for one in human.instances]
    assert [part["human"] for part in figures["parts"]] == np.bincount(humans)[1:].tolist()
    assert figures["miou"] == pytest.approx(np.mean([part["iou"] for part in figures["parts"]]))


def test_perfect_labels_give_one() -> None:
    rng = np.random.default_rng(1)
    humans = [image(f"ant/{n}.jpg", 0, [(1, rectangle(rng), 1.0)]) for n in range(5)]
    figures = summarise(
        LabelTotals.of(VOCABULARY, THRESHOLDS), compared([(human, human) for human in humans])
    )
    for key in ("AP", "AP50", "miou", "coverage", "recall"):
        assert figures[key] == 1.0, key
    assert figures["ece"] == 0.0
    assert figures["calibration"][-1]["count"] == 5


def test_image_with_an_error_or_of_another_size_counts_as_without_parts() -> None:
    human = image("ant/0.jpg", 0, [(1, np.ones(SIZE, bool), 1.0)])
    comparison = LabelComparison(VOCABULARY, THRESHOLDS, 0.0)
    assert comparison.add(ImageParts("ant/0.jpg", 0, 0, 0, error="cut off"), human) == "cut off"
    small = ImageParts("ant/0.jpg", 0, 3, 4, (PartInstance(1, b"", (0, 0, 1, 1)),))
    assert "is 3x4 in the labels and 24x30" in comparison.add(small, human)
    assert [(one.miou, one.coverage, one.parts) for one in comparison.images] == [(0, 0, 0)] * 2


def test_nothing_to_measure_gives_none() -> None:
    figures = summarise(LabelTotals.of(VOCABULARY, THRESHOLDS), compared([]))
    assert [figures[key] for key in ("AP", "miou", "coverage", "ece", "best")] == [None] * 5
    assert PartMatches().average_precision() == {}


def test_galleries_are_ranked_disjoint_and_spread() -> None:
    images = [
        ImageQuality(f"{n % 4}/{n}", n % 4, 0, int(n != 3), n / 40, 0.5, 0.5) for n in range(40)
    ]
    chosen = choose_images(images, 5)
    keys = {name: [one.key for one in group] for name, group in chosen.items()}
    assert keys["best"] == ["3/39", "2/38", "1/37", "0/36", "3/35"]
    assert keys["worst"] == ["0/0", "1/1", "2/2", "0/4", "1/5"]  # 3 has no part
    assert all(15 < int(key[2:]) < 26 for key in keys["median"])
    assert len({key for group in keys.values() for key in group}) == 15
    few = choose_images(images[:2], 5)
    assert sum(len(group) for group in few.values()) == 2
