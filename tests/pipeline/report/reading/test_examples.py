from pathlib import Path

import numpy as np
import pytest

from datamodules.files.errors import UserError
from pipeline.report.reading.examples import amplified_difference, read_examples
from tests.pipeline.report.report_runs import write_runs


def test_fooled_examples_come_first(tmp_path: Path, shapes_root: Path) -> None:
    pairs = read_examples(write_runs(tmp_path, shapes_root) / "evaluate" / "stage3_mpm", limit=2)
    assert [pair.key for pair in pairs] == ["c/3.jpg", "a/1.jpg"]
    assert pairs[0].truth == pairs[0].clean_prediction != pairs[0].adversarial_prediction
    assert pairs[0].gain == 31


def test_classes_beyond_a_list_are_told_by_their_number(tmp_path: Path, shapes_root: Path) -> None:
    run = write_runs(tmp_path, shapes_root) / "evaluate" / "stage3_mpm"
    with np.load(run / "examples.npz") as archive:
        arrays = dict(archive)
    arrays["objects"] = np.array(["0", "1", "2"])  # of a list whose largest label is 2
    beyond = {"clean_prediction": np.array([0, 1, 77]), "adversarial_prediction": [5, 999, 2]}
    np.savez(run / "examples.npz", **(arrays | beyond))
    pairs = read_examples(run)
    answers = {pair.truth: (pair.clean_prediction, pair.adversarial_prediction) for pair in pairs}
    assert answers == {"0": ("0", "5"), "1": ("1", "999"), "2": ("77", "2")}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_cut_file_is_damaged(tmp_path: Path, shapes_root: Path, share: float) -> None:
    path = write_runs(tmp_path, shapes_root) / "evaluate" / "stage3_mpm" / "examples.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"examples.npz is damaged \(.*run make evaluate again"):
        read_examples(path.parent)


def test_difference_is_amplified_to_the_full_range() -> None:
    clean = np.full((2, 2, 3), 100, np.uint8)
    adversarial = clean.copy()
    adversarial[0, 0] += 4
    adversarial[1, 1] -= 4
    difference, gain = amplified_difference(clean, adversarial)
    assert gain == 31
    assert difference[0, 0, 0] == 128 + 124
    assert difference[1, 1, 0] == 128 - 124
    assert difference[0, 1, 0] == 128
