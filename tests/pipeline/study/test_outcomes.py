"""A study's outcomes as one file: written, read again, joined with further runs."""

from pathlib import Path

import pytest

from pipeline.study.commands import TestedOn
from pipeline.study.outcomes import read_outcomes, together, write_outcomes
from pipeline.study.results import Result

RECIPES = {"vanilla": "1a", "mpm": "2b"}


def run(row: str, seed: int, fold: int | None = 0, *, right: bool = True) -> Result:
    outcomes = {"clean": {"a/1.png": True, "a/2.png": right}, "apgd_4": {"a/1.png": False}}
    return Result(row, f"row {row}", seed, fold, outcomes, 10, 20)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    runs = [run("vanilla", 0), run("vanilla", 1, right=False), run("mpm", 0, None)]
    write_outcomes(tmp_path / "o.parquet", [*runs, Result("mpm", "row mpm", 1)], RECIPES)
    assert read_outcomes(tmp_path / "o.parquet", RECIPES) == runs
    assert read_outcomes(tmp_path / "o.parquet", {"mpm": "2b"}) == runs[2:]


def test_other_recipes_and_other_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "o.parquet"
    with pytest.raises(FileNotFoundError, match=r"o.parquet does not exist"):
        read_outcomes(file, RECIPES)
    file.write_text("no table")
    with pytest.raises(ValueError, match="holds no outcomes of a study"):
        read_outcomes(file, RECIPES)
    write_outcomes(file, [run("mpm", 0)], RECIPES)
    with pytest.raises(ValueError, match="mpm was made by other configurations than today's"):
        read_outcomes(file, RECIPES | {"mpm": "3c"})


def test_runs_tested_on_other_images_are_refused(tmp_path: Path) -> None:
    file, both = tmp_path / "o.parquet", frozenset({"a/1.png", "a/2.png"})
    write_outcomes(file, [run("mpm", 0, 1)], RECIPES)
    assert read_outcomes(file, RECIPES, {0: TestedOn(frozenset(), 0), 1: TestedOn(both, 2)})
    for tested in (
        {None: TestedOn(both, 2)},  # no fold
        {1: TestedOn(frozenset({"a/1.png", "b/2.png"}), 2)},  # another fold, or other data
        {1: TestedOn(both | {"a/3.png"}, 3)},  # more of it
    ):
        with pytest.raises(ValueError, match="mpm, seed 0, fold 1, was tested on other images"):
            read_outcomes(file, RECIPES, tested)


def test_runs_of_this_study_stand_for_earlier_ones() -> None:
    missing = Result("mpm", "row mpm", 1, 0)
    now = [run("mpm", 0, right=False), missing]
    earlier = [run("mpm", 0), run("mpm", 1), run("mpm", 2)]
    assert together(now, earlier) == [now[0], earlier[1], earlier[2]]
    assert together(now, []) == now
