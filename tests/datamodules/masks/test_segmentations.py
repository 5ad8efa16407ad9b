import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from datamodules.masks.part_labels import encode_mask
from datamodules.masks.segmentations import SegmentationError, box_problem, compress, run_lengths
from tests.datamodules.annotations.annotated import POLYGON, runs, square
from tests.datamodules.annotations.damages import DAMAGED

SQUARE = encode_mask(square(6, 8)).decode()


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_are_those_of_the_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 200, 2)
    mask = np.repeat(rng.random((height, width)) < rng.random(), rng.integers(1, 30), axis=0)
    mask = mask.astype(np.uint8)
    assert run_lengths(encode_mask(mask)).tolist() == runs(mask)


def test_long_runs_and_full_masks() -> None:
    for mask in (np.zeros((3000, 4000), np.uint8), np.ones((3000, 4000), np.uint8)):
        assert run_lengths(encode_mask(mask)).tolist() == runs(mask)


def test_three_spellings_are_one_mask() -> None:
    mask = square(6, 8)
    plain, compressed = {"size": [6, 8], "counts": runs(mask)}, {"size": [6, 8], "counts": SQUARE}
    for spelling in (POLYGON, plain, compressed):
        rle = {"size": [6, 8], "counts": compress(spelling, 6, 8)}
        assert np.array_equal(coco_mask.decode(rle), mask)


@pytest.mark.parametrize(
    ("segmentation", "kind"),
    [
        (None, "malformed_entry"),
        ({"counts": SQUARE}, "malformed_entry"),
        ({"size": [6, 8]}, "broken_runs"),
        ({"size": [6.5, 8], "counts": SQUARE}, "malformed_entry"),
        ({"size": [8, 6], "counts": SQUARE}, "size_mismatch"),
        ({"size": [6, 8], "counts": SQUARE[:-1]}, "broken_runs"),
        ({"size": [6, 8], "counts": SQUARE + "P"}, "broken_runs"),
        ({"size": [6, 8], "counts": ""}, "broken_runs"),
        ({"size": [6, 8], "counts": "oooooooo0"}, "broken_runs"),
        ({"size": [6, 8], "counts": "é"}, "broken_runs"),
        ({"size": [6, 8], "counts": [50, -2]}, "broken_runs"),
        ({"size": [6, 8], "counts": [10**30]}, "broken_runs"),
        ({"size": [6, 8], "counts": [48.0]}, "broken_runs"),
        ({"size": [6, 8], "counts": [True]}, "broken_runs"),
        ([], "empty_polygon"),
        ([[]], "degenerate_polygon"),
        ([[1, 1, 2, 2]], "degenerate_polygon"),
        ([[1, 1, 2, 2, 3, 1, 4]], "degenerate_polygon"),
        ([POLYGON], "malformed_entry"),
        ([[1, 1, 2, 2, 3, "1"]], "malformed_entry"),
        ([[1, 1, 2, 2, 3, None]], "malformed_entry"),
        ([[1, 1, 2, 2, 3, float("nan")]], "malformed_entry"),
        ([[1, 1, 2, 2, 3, 10**400]], "malformed_entry"),
        ([[1, 1, 2, 2, 3, 1e300]], "mask_outside"),
        ([[-3, 1, 2, 2, 3, 4]], "mask_outside"),
        ([[1, 1, 2, 2, 3, 7.5]], "mask_outside"),
    ],
)
def test_what_is_no_mask_of_the_image_is_named(segmentation: Any, kind: str) -> None:
    with pytest.raises(SegmentationError) as error:
        compress(segmentation, 6, 8)
    assert error.value.kind == kind


@pytest.mark.parametrize(
    ("listed", "kind"),
    [
        (None, None),
        ([2, 1, 3, 3], None),
        ([1.5, 0.5, 4, 4], None),
        ([2, 1, 30, 3], "box_mismatch"),
        ([20, 1, 3, 3], "box_elsewhere"),
        ([2, 1, 3], "box_mismatch"),
        ("2,1,3,3", "box_mismatch"),
        ([2, 1, 3, float("inf")], "box_mismatch"),
    ],
)
def test_boxes(listed: Any, kind: str | None) -> None:
    found = box_problem(listed, (2.0, 1.0, 5.0, 4.0))
    assert (found and found[0]) == kind


@given(counts=st.binary(max_size=20) | st.text(max_size=12).map(lambda text: text.encode()))
@settings(DAMAGED, max_examples=300)
def test_run_lengths_of_any_bytes(counts: bytes) -> None:
    with contextlib.suppress(SegmentationError):
        assert run_lengths(counts).dtype == np.int64


@given(mask=st.lists(st.integers(0, 1), min_size=12, max_size=12), junk=st.text(max_size=2))
@settings(DAMAGED, max_examples=150)
def test_changed_counts_are_the_mask_or_refused(mask: list[int], junk: str) -> None:
    truth = np.array(mask, np.uint8).reshape(3, 4)
    counts = encode_mask(truth).decode() + junk
    try:
        compressed = compress({"size": [3, 4], "counts": counts}, 3, 4)
    except SegmentationError:
        assert junk
        return
    assert run_lengths(compressed).sum() == truth.size
