from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.evaluation.human_stimuli import EXPERIMENTS, DistortedImages
from datamodules.evaluation.object_groups import human_categories, known_groups
from tests.datamodules.evaluation.test_ood_sets import save, setting

OBJECTS = tuple(sorted(known_groups("human16")))
COLOUR = "dnn/session-1/0001_cl_dnn_cr_oven_40_n04111531_14126.png"


def test_categories_are_read_from_names_or_folders(tmp_path: Path) -> None:
    save(tmp_path / "colour" / COLOUR)
    save(tmp_path / "colour" / "cat" / "ignored_because_not_below_dnn.png")
    save(tmp_path / "edge" / "bear" / "bear7.png")
    sets = {
        found.name: found for found in DistortedImages(tmp_path).sets(setting(tmp_path, OBJECTS))
    }
    assert list(sets) == [f"din/{name}" for name in EXPERIMENTS]
    names = human_categories()
    assert sets["din/colour"].items() == [(COLOUR, names.index("oven"))]
    assert sets["din/edge"].items() == [("bear/bear7.png", names.index("bear"))]
    assert {name for name, found in sets.items() if not found.missing} == {"din/colour", "din/edge"}
    groups = sets["din/edge"].groups
    assert groups is not None
    assert [names[g] for g in groups.tolist()] == [known_groups("human16")[o] for o in OBJECTS]
    assert sets["din/edge"].aggregate == "mean"


def test_stimuli_of_the_network_size_are_not_cropped(tmp_path: Path) -> None:
    save(tmp_path / "edge" / "bear" / "bear7.png", 5, (16, 16))
    here = setting(tmp_path, OBJECTS, size=16, resize=20)
    edge = next(s for s in DistortedImages(tmp_path).sets(here) if s.name == "din/edge")
    with Image.open(tmp_path / "edge" / "bear" / "bear7.png") as image:
        wanted = np.array(image)
    np.testing.assert_array_equal(edge.image("bear/bear7.png").permute(1, 2, 0).numpy(), wanted)


def test_what_is_missing_and_what_is_wrong(tmp_path: Path) -> None:
    (found,) = DistortedImages(None).sets(setting(tmp_path, OBJECTS))
    assert found.name == "din"
    assert "no folder given" in found.missing
    (found,) = DistortedImages(tmp_path).sets(setting(tmp_path, ("car", "mug")))
    assert "no class of 16 of the 16 categories" in found.missing
    save(tmp_path / "edge" / "wolf" / "a.png")
    with pytest.raises(ValueError, match="nor its folder is one of the 16 categories"):
        DistortedImages(tmp_path).sets(setting(tmp_path, OBJECTS))
