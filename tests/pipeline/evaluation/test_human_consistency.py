import csv
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from datamodules.evaluation.human_decisions import (
    EXCLUDED,
    Decisions,
    condition_name,
    make_decisions,
    read_decisions,
)
from datamodules.evaluation.human_stimuli import EXPERIMENTS
from pipeline.evaluation.human_consistency import (
    accuracy,
    compare,
    compare_decisions,
    human_alignment,
    mean_over_experiments,
    model_alignment,
)
from tests.conftest import SHARED


def test_a_case_worked_by_hand() -> None:
    # both right 4 times, both wrong 1, one of them right 2 + 3 times
    a = np.array([1] * 4 + [0] + [1] * 2 + [0] * 3, bool)
    b = np.array([1] * 4 + [0] + [0] * 2 + [1] * 3, bool)
    found = compare(a, b)
    # p = 0.6, q = 0.7, observed 0.5, expected 0.42 + 0.12 = 0.54
    assert found["accuracy_difference"] == pytest.approx(0.01)
    assert found["observed_consistency"] == pytest.approx(0.5)
    assert found["error_consistency"] == pytest.approx((0.5 - 0.54) / 0.46)


def test_kappa_of_every_table_of_six_images() -> None:
    """Against Cohen's kappa from the weights of a contingency table."""
    for numbers in product(range(7), repeat=3):
        both, first, second = numbers
        neither = 6 - sum(numbers)
        if neither < 0:
            continue
        a = np.repeat([True, True, False, False], [both, first, second, neither])
        b = np.repeat([True, False, True, False], [both, first, second, neither])
        table = np.array([[both, first], [second, neither]]) / 6
        by_chance = np.outer(table.sum(1), table.sum(0))
        disagreement = 1 - np.eye(2)
        if first + second == 0:
            kappa = 1.0  # also where both are always right, which leaves kappa undefined
        else:
            kappa = 1 - (table * disagreement).sum() / (by_chance * disagreement).sum()
        assert compare(a, b)["error_consistency"] == pytest.approx(kappa)


def decisions(subject: str, right: dict[str, str]) -> Decisions:
    """Colour decisions: by condition a string of 1 (right) and 0."""
    rows = [
        (f"x_n0{condition}_{i}.png", condition, "cat", "cat" if one == "1" else "dog")
        for condition, text in right.items()
        for i, one in enumerate(text)
    ]
    return make_decisions("colour", subject, rows)


def test_means_go_over_conditions_then_people_and_leave_out_the_control() -> None:
    model = decisions("net", {"cr": "0000", "bw": "1100"})
    people = [
        decisions("subject-01", {"cr": "1111", "bw": "1000"}),
        decisions("subject-02", {"cr": "1111", "bw": "0011"}),
    ]
    assert list(compare_decisions(model, people[0])) == ["bw"]
    found = model_alignment(model, people)
    assert found["accuracy_difference"] == pytest.approx((0.25**2 + 0) / 2)
    assert found["observed_consistency"] == pytest.approx((3 / 4 + 0) / 2)
    assert found["error_consistency"] == pytest.approx((0.5 - 1) / 2)
    assert human_alignment(people)["observed_consistency"] == pytest.approx(1 / 4)
    assert accuracy(people, ["bw"]) == pytest.approx(3 / 8)
    with pytest.raises(ValueError, match="one person, pairs need two"):
        human_alignment(people[:1])
    with pytest.raises(ValueError, match="share 3 of 4 and 3 images"):
        compare_decisions(decisions("net", {"bw": "1100"}), decisions("x", {"bw": "110"}))


def test_people_against_people_on_the_real_decisions() -> None:
    """As the released code of Geirhos et al. 2021 computes it, and as plain loops do."""
    folder = SHARED / "human_decisions"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    people = read_decisions(folder)
    found = {name: human_alignment(group) for name, group in people.items()}
    for name in ("contrast", "edge"):
        assert found[name]["error_consistency"] == pytest.approx(plain_kappa(folder, name))
    published = {  # from that code, run on these files
        "colour": 0.415432,
        "contrast": 0.437025,
        "high-pass": 0.440141,
        "low-pass": 0.468879,
        "phase-scrambling": 0.446673,
        "power-equalisation": 0.510632,
        "false-colour": 0.444045,
        "rotation": 0.438509,
        "eidolonI": 0.386336,
        "eidolonII": 0.454018,
        "eidolonIII": 0.459532,
        "uniform-noise": 0.434057,
        "cue-conflict": 0.331052,
        "edge": 0.318436,
        "silhouette": 0.475709,
        "sketch": 0.369620,
        "stylized": 0.500582,
    }
    assert tuple(published) == EXPERIMENTS
    for name, kappa in published.items():
        assert found[name]["error_consistency"] == pytest.approx(kappa, abs=1e-6)
    mean = mean_over_experiments(found)
    assert mean["accuracy_difference"] == pytest.approx(0.006566, abs=1e-6)
    assert mean["observed_consistency"] == pytest.approx(0.808542, abs=1e-6)
    assert mean["error_consistency"] == pytest.approx(0.431216, abs=1e-6)


def plain_kappa(folder: Path, experiment: str) -> float:
    """Mean over pairs of people of the mean over conditions of kappa, from the files."""
    right: dict[str, dict[str, dict[str, bool]]] = {}
    for file in (folder / "raw-data" / experiment).glob("*.csv"):
        with file.open(newline="") as stream:
            for row in csv.DictReader(stream):
                condition = condition_name(experiment, row["condition"])
                if condition not in EXCLUDED.get(experiment, ()):
                    trials = right.setdefault(row["subj"], {}).setdefault(condition, {})
                    image = row["imagename"].split("_", 3)[3]
                    trials[image] = row["object_response"] == row["category"]
    names = sorted(right)
    pairs = [(a, b) for a in names for b in names if a < b]
    kappas = []
    for a, b in pairs:
        by_condition = []
        for condition, first in right[a].items():
            second = right[b][condition]
            assert first.keys() == second.keys()
            p = sum(first.values()) / len(first)
            q = sum(second.values()) / len(second)
            same = sum(first[image] == second[image] for image in first) / len(first)
            chance = p * q + (1 - p) * (1 - q)
            by_condition.append((same - chance) / (1 - chance))
        kappas.append(sum(by_condition) / len(by_condition))
    return sum(kappas) / len(kappas)
