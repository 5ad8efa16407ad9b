"""Classes of parts and objects, and what a segmenter of either is to learn."""

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules.images.transforms import boxes_of
from modules.networks.detector_categories import DetectorCategories, united

OBJECT_PARTS = torch.tensor(
    [
        [True, True, True, False],
        [True, False, False, True],
        [True, False, False, False],  # an object that nobody annotated
    ]
)
WAYS = (None, "beside_parts", "alone")


def image(seed: int, count: int) -> dict[str, Tensor]:
    """Random blobs, as the data module gives parts."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(count, 24, 30, dtype=torch.uint8)
    for mask in masks:
        y, x = (int(torch.randint(0, 18, (), generator=generator)) for _ in range(2))
        mask[y : y + 6, x : x + 9] = torch.rand(6, 9, generator=generator) < 0.6
        mask[y, x] = 1
    labels = torch.randint(1, 3, (count,), generator=generator)
    return {"boxes": boxes_of(masks), "labels": labels, "masks": masks}


@pytest.mark.parametrize("seed", range(5))
def test_an_object_is_the_union_of_its_parts(seed: int) -> None:
    parts = image(seed, 1 + seed)
    whole = united(parts, torch.tensor(7))
    union = np.zeros((24, 30), bool)
    for mask in parts["masks"].numpy():
        union |= mask == 1
    rows, columns = np.nonzero(union)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.array_equal(whole["masks"].numpy(), union[None])
    assert whole["masks"].dtype == torch.uint8
    assert whole["boxes"].tolist() == [[float(value) for value in box]]
    assert whole["labels"].tolist() == [7]


def test_without_parts_there_is_no_object() -> None:
    for way in WAYS[1:]:
        target = DetectorCategories(OBJECT_PARTS, way).targets(image(0, 0), torch.tensor(1))
        assert target["boxes"].shape == (0, 4)
        assert target["masks"].shape == (0, 24, 30)
        assert target["labels"].dtype == torch.int64
        assert target["labels"].shape == (0,)


def test_parts_keep_their_ids_and_objects_follow() -> None:
    parts, label = image(3, 3), torch.tensor(1)
    alone = DetectorCategories(OBJECT_PARTS, "alone").targets(parts, label)
    assert alone["labels"].tolist() == [2]
    assert torch.equal(alone["masks"], united(parts, label)["masks"])
    joint, drawn = DetectorCategories(OBJECT_PARTS, "beside_parts"), set()
    for seed in range(20):
        torch.manual_seed(seed)
        both = joint.targets(parts, label)
        first = int(both["labels"][0]) == 5  # 1 + three parts + class label 1
        drawn.add(first)
        own = slice(1, 4) if first else slice(0, 3)
        place = 0 if first else 3
        assert both["labels"][place] == 5
        for name, values in parts.items():
            assert torch.equal(both[name][own], values)
        assert torch.equal(both["masks"][place], alone["masks"][0])
        assert torch.equal(both["boxes"][place], alone["boxes"][0])
    assert drawn == {True, False}  # neither always wins the regions of an object of one part


def test_split_undoes_the_numbering() -> None:
    found = {"labels": torch.tensor([6, 1, 4, 3]), "scores": torch.tensor([0.9, 0.8, 0.7, 0.6])}
    parts, objects = DetectorCategories(OBJECT_PARTS, "beside_parts").split(found)
    assert (parts["labels"].tolist(), objects["labels"].tolist()) == ([1, 3], [2, 0])
    torch.testing.assert_close(parts["scores"], torch.tensor([0.8, 0.6]))
    torch.testing.assert_close(objects["scores"], torch.tensor([0.9, 0.7]))
    found = {"labels": torch.tensor([3, 1])}
    parts, objects = DetectorCategories(OBJECT_PARTS, "alone").split(found)
    assert (parts["labels"].tolist(), objects["labels"].tolist()) == ([], [2, 0])
    parts, objects = DetectorCategories(OBJECT_PARTS, None).split(found)
    assert (parts["labels"].tolist(), objects["labels"].tolist()) == ([3, 1], [])


def test_filters_and_counts() -> None:
    parts, joint, alone = (DetectorCategories(OBJECT_PARTS, way) for way in WAYS)
    assert [one.num_classes for one in (parts, joint, alone)] == [4, 7, 4]
    assert torch.equal(parts.allowed, OBJECT_PARTS)
    named = [row.nonzero().flatten().tolist() for row in joint.allowed]
    assert named == [[0, 1, 2, 4], [0, 3, 5], [0, 6]]
    named = [row.nonzero().flatten().tolist() for row in alone.allowed]
    assert named == [[0, 1], [0, 2], [0, 3]]

    labels = torch.tensor([1, 0])
    assert torch.equal(parts.part_filter(labels, 2), OBJECT_PARTS[labels])
    assert parts.part_filter(None, 2) is None
    found = [row.nonzero().flatten().tolist() for row in joint.part_filter(labels, 2)]
    assert found == [[0, 3], [0, 1, 2]]
    found = [row.nonzero().flatten().tolist() for row in joint.part_filter(None, 2)]
    assert found == [[0, 1, 2, 3]] * 2
    with pytest.raises(ValueError, match="whole_objects=alone, so it finds no parts"):
        alone.part_filter(labels, 2)

    counts = torch.tensor([0, 5, 6, 7]), torch.tensor([8, 7, 0])
    assert parts.class_counts(*counts).tolist() == [0, 5, 6, 7]
    assert joint.class_counts(*counts).tolist() == [0, 5, 6, 7, 8, 7, 0]
    assert alone.class_counts(*counts).tolist() == [0, 8, 7, 0]


def test_no_state_is_kept_and_an_unknown_word_is_named() -> None:
    assert not DetectorCategories(OBJECT_PARTS, "beside_parts").state_dict()
    with pytest.raises(ValueError, match="whole_objects both is unknown: give beside_parts, alone"):
        DetectorCategories(OBJECT_PARTS, "both")
