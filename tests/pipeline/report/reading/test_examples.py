from pathlib import Path

import numpy as np

from pipeline.report.reading.examples import amplified_difference, read_examples
from tests.pipeline.report.report_runs import write_runs


def test_fooled_examples_come_first(tmp_path: Path, shapes_root: Path) -> None:
    pairs = read_examples(write_runs(tmp_path, shapes_root) / "evaluate" / "stage3_mpm", limit=2)
    assert [pair.key for pair in pairs] == ["c/3.jpg", "a/1.jpg"]
    assert pairs[0].truth == pairs[0].clean_prediction != pairs[0].adversarial_prediction
    assert pairs[0].gain == 31


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
