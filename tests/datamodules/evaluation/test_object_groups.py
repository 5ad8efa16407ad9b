import csv
from collections import Counter

import pytest

from datamodules.evaluation.object_groups import (
    human_categories,
    human_groups,
    human_problem,
    known_groups,
)
from tests.conftest import SHARED

PIN = {
    "quadruped": 46,
    "reptile": 20,
    "car": 19,
    "biped": 17,
    "snake": 15,
    "bird": 14,
    "fish": 10,
    "bicycle": 6,
    "bottle": 5,
    "boat": 4,
    "aeroplane": 2,
}


def test_sizes_of_the_groups() -> None:
    assert Counter(known_groups("pin11").values()) == PIN
    human = Counter(known_groups("human16").values())
    assert (len(human), human.total(), human["dog"], human["oven"]) == (16, 207, 109, 1)
    assert human_categories()[:3] == ("airplane", "bear", "bicycle")


def test_groups_are_those_of_the_published_table() -> None:
    file = SHARED / "imagenet_meta" / "imagenet1k.csv"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    human = {row["wnid"]: row["human16"] for row in rows if row["human16"]}
    assert known_groups("human16") == human
    pin = {r["wnid"]: r["pin_supercategory"].lower() for r in rows if r["pin_supercategory"]}
    assert known_groups("pin11") == pin
    objects = [row["wnid"] for row in rows]
    assert human_problem(objects) == ""
    names = human_categories()
    groups = human_groups(objects).tolist()
    assert [names[g] if g >= 0 else "" for g in groups] == [row["human16"] for row in rows]


def test_a_model_without_a_category_cannot_answer() -> None:
    assert "no class of 15 of the 16 categories (airplane)" in human_problem(["n03041632", "mug"])
