from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.robustness_sets import RobustnessSets, UnitDataset, balanced_order, to_pixels

IMAGES = [(f"{name}/{i}.jpg", label) for label, name in enumerate("abc") for i in range(7)]


@pytest.mark.parametrize("number", range(1, 22))
def test_every_prefix_is_balanced(number: int) -> None:
    counts = Counter(label for _, label in balanced_order(IMAGES, 0)[:number])
    assert max(counts.values()) - min(counts[label] for label in range(3)) <= 1


def test_order_depends_on_seed_and_keys_only() -> None:
    order = balanced_order(IMAGES, 0)
    assert sorted(order) == sorted(IMAGES)
    assert balanced_order(IMAGES[::-1], 0) == order
    assert balanced_order(IMAGES, 1) != order
    rest = [pair for pair in IMAGES if pair[0] != "a/3.jpg"]
    within = [pair for pair in order if pair[1] == 0 and pair in rest]
    assert [pair for pair in balanced_order(rest, 0) if pair[1] == 0] == within


def test_exhausted_class_leaves_the_turn_to_the_others() -> None:
    order = balanced_order([*IMAGES[:7], IMAGES[7]], 0)
    assert len(order) == 8
    assert IMAGES[7] in order[:2]


def test_pixels_are_pils_bicubic_resize_and_centre_crop() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    resized = image.resize((30, 20), Image.Resampling.BICUBIC)
    wanted = np.asarray(resized)[2:18, 7:23]
    pixels = to_pixels(image, 20, 16)
    assert pixels.dtype == torch.uint8
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), wanted)


def make_sets(root: Path, **changes: object) -> RobustnessSets:
    arguments: dict = {"images": {"clean": 9, "pgd": 5}, "chunk_size": 4}
    arguments |= {"image_size": 16, "resize": 16} | changes
    return RobustnessSets(root / "imagenet", root / "pinpp", **arguments)


def test_units_and_batches(shapes_root: Path) -> None:
    sets = make_sets(shapes_root)
    assert [(u.threat, u.chunk, len(u.images)) for u in sets.units] == [
        ("clean", 0, 4),
        ("clean", 1, 4),
        ("clean", 2, 1),
        ("pgd", 0, 4),
        ("pgd", 1, 1),
    ]
    assert len({unit.seed for unit in sets.units}) == 5
    assert sets.units[0].images == sets.units[3].images
    more = make_sets(shapes_root, images={"pgd": 9})
    assert more.units[0] == sets.units[3]
    batch = UnitDataset(sets.units, sets.split, 16, 16)[4]
    assert batch["image"].shape == (1, 3, 16, 16)
    assert batch["position"].tolist() == [4]
    assert (batch["threat"], batch["chunk"]) == ("pgd", 1)
    key, label = sets.image_list[4]
    assert batch["key"] == [key]
    assert batch["label"].tolist() == [label]
    assert sets.vocabulary.objects[label] == key.partition("/")[0]
    assert sets.object_parts.shape[0] == len(sets.vocabulary.objects)


def test_wrong_numbers_are_refused(shapes_root: Path) -> None:
    with pytest.raises(ValueError, match="pgd: 0"):
        make_sets(shapes_root, images={"clean": 1, "pgd": 0})
    with pytest.raises(ValueError, match="image_size=32"):
        make_sets(shapes_root, image_size=32)
    with pytest.raises(FileNotFoundError, match="IMAGENET"):
        RobustnessSets(shapes_root / "nowhere", shapes_root / "pinpp", {"clean": 1})
