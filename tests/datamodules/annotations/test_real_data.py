"""The readers on real photographs with part masks."""

from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.images.imagenet_folder import list_images
from datamodules.masks.part_labels import decode_masks
from datamodules.masks.part_masks import LabelRuns, composite


def test_counts_and_relations(parts_mini: Path) -> None:
    vocabulary = PartVocabulary.from_pinpp(parts_mini / "pinpp", parts_mini / "imagenet")
    train = parts_mini / "imagenet" / "train"
    annotations = read_annotations(parts_mini / "pinpp", vocabulary, train)
    assert vocabulary.num_parts == 43
    assert len(annotations) == 446
    assert sum(len(row.instances) for row in annotations) == 5245
    assert len(list_images(train)) == 446 + 789
    (part, whole), *others = vocabulary.inclusions
    assert not others
    assert vocabulary.parts[part - 1] == "building:window"
    assert vocabulary.parts[whole - 1] == "building:wall"


def test_masks_fit_their_photographs(parts_mini: Path) -> None:
    vocabulary = PartVocabulary.from_pinpp(parts_mini / "pinpp", parts_mini / "imagenet")
    for row in read_annotations(parts_mini / "pinpp", vocabulary)[::10]:
        with Image.open(parts_mini / "imagenet" / "train" / row.key) as image:
            assert (row.height, row.width) == (image.height, image.width)
        masks = decode_masks(row).astype(bool)
        for part, mask in zip(row.instances, masks, strict=True):
            rows, columns = np.nonzero(mask)
            extent = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert part.box == tuple(float(value) for value in extent)
        labels = composite(row, vocabulary.inclusions)
        assert np.array_equal(labels != 0, masks.any(0))
        assert set(np.unique(labels)) <= {0, *vocabulary.parts_of(row.label)}
        runs = LabelRuns.encode(labels)
        assert np.array_equal(runs.at(np.arange(row.height), np.arange(row.width)), labels)
