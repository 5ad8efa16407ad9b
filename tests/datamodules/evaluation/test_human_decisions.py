import csv
from pathlib import Path

import numpy as np
import pytest

from datamodules.evaluation.human_decisions import (
    CONDITIONS,
    EXCLUDED,
    condition_name,
    image_id,
    make_decisions,
    read_decisions,
    read_decisions_file,
)
from datamodules.evaluation.human_stimuli import EXPERIMENTS
from tests.conftest import SHARED

HEADER = "subj,Session,trial,rt,object_response,category,condition,imagename\n"


def write(file: Path, *rows: str, header: str = HEADER) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(header + "".join(f"{row}\n" for row in rows))
    return file


def test_sessions_are_joined_and_ordered_by_image(tmp_path: Path) -> None:
    folder = tmp_path / "raw-data" / "uniform-noise"
    row = "subject-01,{},1,0.5,{},cat,0.90,000{}_nse_s01_0.90_cat_10_n0{}_1.png"
    write(folder / "a.csv", row.format(1, "cat", 1, 5))
    write(folder / "b.csv", row.format(2, "na", 2, 4), header="\ufeff" + HEADER.lower())
    ((experiment, (one,)),) = read_decisions(tmp_path).items()
    assert (experiment, one.subject) == ("uniform-noise", "subject-01")
    assert one.images == ("n04_1", "n05_1")
    assert one.conditions == ("0.9", "0.9")
    assert one.correct.tolist() == [False, True]
    assert one.counted == ("0.03", "0.05", "0.1", "0.2", "0.35")


def test_names_of_images_and_conditions() -> None:
    assert image_id("0001_cl_s01_cr_oven_40_n04111531_14126.png") == "n04111531_14126"
    assert image_id("dnn/session-1/0009_cl_dnn_cr_oven_40_n04111531_1.JPEG") == "n04111531_1"
    assert image_id("0001_s5n_s01_0_bird_00_bird3-bird2.png") == "bird3-bird2"
    assert image_id("airplane1-bicycle2.png") == "airplane1-bicycle2"
    given = [("high-pass", "3.0"), ("high-pass", "inf"), ("false-colour", "True"), ("edge", "0")]
    assert [condition_name(*pair) for pair in given] == ["3", "inf", "true", ""]


def test_a_file_of_a_model_is_named_after_its_experiment(tmp_path: Path) -> None:
    row = "net,1,1,nan,bear,bear,0,bear1.png"
    for name in ("edge/net.csv", "edge_net.csv"):
        assert list(read_decisions_file(write(tmp_path / name, row))) == ["edge"]
    with pytest.raises(ValueError, match="neither file nor folder is named after an experiment"):
        read_decisions_file(write(tmp_path / "net.csv", row))
    with pytest.raises(ValueError, match="holds 2 decision makers"):
        read_decisions_file(write(tmp_path / "edge_two.csv", row, row.replace("net", "other")))


def test_malformed_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no experiment"):
        read_decisions(tmp_path)
    write(tmp_path / "edge" / "a.csv", "1,2", header="subj,rt\n")
    with pytest.raises(ValueError, match="has no column object_response"):
        read_decisions(tmp_path)
    row = ("a_n01_1.png", "cr", "cat", "cat")
    with pytest.raises(ValueError, match="image n01_1 occurs twice"):
        make_decisions("colour", "net", [row, row])
    with pytest.raises(ValueError, match="unknown condition sepia"):
        make_decisions("colour", "net", [(row[0], "sepia", "cat", "cat")])


def test_excluded_conditions_follow_from_the_real_decisions() -> None:
    """The first condition, and those where people's mean accuracy is at most 0.2.

    It is exactly 0.2 under low-pass 15.
    """
    folder = SHARED / "human_decisions"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    people = read_decisions(folder)
    assert tuple(people) == EXPERIMENTS
    assert sum(len(one.images) for group in people.values() for one in group) == 85_120
    assert sum(len(group[0].images) for group in people.values()) == 18_080
    for name, conditions in CONDITIONS.items():
        right: dict[str, list[bool]] = {}
        for file in (folder / "raw-data" / name).glob("*.csv"):
            with file.open(newline="") as stream:
                for row in csv.DictReader(stream):
                    found = condition_name(name, row["condition"])
                    right.setdefault(found, []).append(row["object_response"] == row["category"])
        assert set(right) == set(conditions)
        low = {condition for condition, trials in right.items() if np.mean(trials) <= 0.2}
        assert EXCLUDED[name] == low | {conditions[0]}, name
