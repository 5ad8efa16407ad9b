"""The store of part labels against the maps that were painted, and jitter against the CPU."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu_check.exact import deviation
from benchmarks.gpu_check.results import Check
from benchmarks.gpu_check.scale import Setting
from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.images.device_augmentation import augment
from datamodules.labels.composite_store import CompositeStore, write_composites
from datamodules.masks.part_masks import composite
from datamodules.part_shapes.part_shapes import render_part_shapes


def check(setting: Setting) -> list[Check]:
    """All pixels of some rendered images, and colour jitter computed by the device.

    Raises:
        RuntimeError: if no image has part labels.
    """
    with tempfile.TemporaryDirectory() as name:
        root = render_part_shapes(
            Path(name) / "shapes", num_objects=2, train_per_object=4, annotated_per_object=4,
            val_per_object=0, size=96,
        )  # fmt: skip
        vocabulary = PartVocabulary.from_pinpp(root / "pinpp", root / "imagenet")
        rows = [row for row in read_annotations(root / "pinpp", vocabulary) if row.instances]
        write_composites(Path(name) / "labels.arrow", rows, vocabulary.inclusions)
        store = CompositeStore(Path(name) / "labels.arrow")
        wrong = pixels = parts = 0
        for index, row in enumerate(rows):
            painted = composite(row, vocabulary.inclusions)
            found = store.runs(index).at(np.arange(row.height), np.arange(row.width))
            on_device = torch.from_numpy(found.astype(np.int64)).to(setting.device)
            wrong += int((on_device.cpu().numpy() != painted).sum())
            pixels += painted.size
            parts += int((painted > 0).sum())
    if not parts:
        raise RuntimeError("the rendered images have no part labels")
    return [
        Check("store: share of wrong pixels", wrong / pixels, 0.0, "the painted maps"),
        Check("jitter of colours", _jitter(setting.device), 1e-5, "the CPU"),
    ]


def _jitter(device: str) -> float:
    generator = torch.Generator().manual_seed(5)
    given = {
        "image": torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator),
        "colour": 0.9 + 0.2 * torch.rand(4, 3, generator=generator),
    }
    moved = {key: value.to(device) for key, value in given.items()}
    # in float64 the last bit of the mean is no question
    exact = augment({"image": given["image"], "colour": given["colour"].double()})
    return deviation([augment(moved)["image"]], [exact["image"]])
