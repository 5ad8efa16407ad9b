from pathlib import Path

import numpy as np
import pytest

from datamodules.evaluation.bias_sets import CueConflict, read_cues
from datamodules.evaluation.object_groups import human_categories, known_groups
from tests.datamodules.evaluation.test_ood_sets import save, setting

OBJECTS = tuple(sorted(known_groups("human16")))


def test_labels_are_shapes_and_figures_the_shape_bias(tmp_path: Path) -> None:
    for name in (
        "cat/cat1-dog2.png",
        "cat/cat2-cat3.png",
        "car/car10-knife2.png",
        "x_bear1-car1.png",
    ):
        save(tmp_path / name)
    (found,) = CueConflict(tmp_path).sets(setting(tmp_path, OBJECTS))
    number = {name: i for i, name in enumerate(human_categories())}
    assert found.items() == [
        ("car/car10-knife2.png", number["car"]),
        ("cat/cat1-dog2.png", number["cat"]),
        ("x_bear1-car1.png", number["bear"]),
    ]
    keys, labels = zip(*found.items(), strict=True)
    # shape, texture, neither
    figures = found.figures(keys, labels, [number["car"], number["dog"], number["oven"]])
    third = pytest.approx(1 / 3)
    assert figures == {"shape_share": third, "texture_share": third, "shape_bias": 0.5}
    neither = found.figures(keys, labels, [number["oven"]] * 3)
    assert np.isnan(neither["shape_bias"])


@pytest.mark.parametrize("name", ["cat1.png", "cat1-wolf2.png", "cat1-dog2-car3.png"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="the name must be shape and texture"):
        read_cues(Path(name))


def test_missing_folder_is_said(tmp_path: Path) -> None:
    (found,) = CueConflict(None).sets(setting(tmp_path, OBJECTS))
    assert "no folder given" in found.missing
