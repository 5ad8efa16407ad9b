"""When outcomes of an earlier study count as those of today's recipe."""

from pathlib import Path

import pytest

from pipeline.runs.stages import MPM, SEGMENTER
from pipeline.study.commands import StudyCommands, StudyData
from pipeline.study.rows import chosen_rows


def recipes(folder: Path, **overlays: str) -> dict[str, str]:
    """Hashes with one more overlay of each stage that is named."""
    folder.mkdir()
    for stage, text in overlays.items():
        (folder / f"{stage}.yaml").write_text(text)
    data = StudyData("shapes", folder / "imagenet", folder / "pinpp", None)
    runs = folder / "filtered", folder / "unfiltered"
    commands = StudyCommands(data, folder, "small", (folder,), *runs, autoattack=0)
    return commands.recipes(chosen_rows(["vanilla", "mpm", "real_labels"]))


@pytest.fixture
def today(tmp_path: Path) -> dict[str, str]:
    return recipes(tmp_path / "today")


def test_comments_and_values_that_stand_already_change_nothing(
    tmp_path: Path, today: dict[str, str]
) -> None:
    image_size = "# why\ndata: {init_args: {image_size: 64}}"
    assert recipes(tmp_path / "same", **{MPM.name: image_size}) == today


def test_every_row_has_its_own(today: dict[str, str]) -> None:
    assert len(set(today.values())) == 3


def test_a_setting_of_stage_3_counts_for_all(tmp_path: Path, today: dict[str, str]) -> None:
    found = recipes(tmp_path / "other", **{MPM.name: "trainer: {max_epochs: 99}"})
    assert all(found[row] != hashed for row, hashed in today.items())


def test_the_segmenter_counts_where_its_labels_are_learnt_from(
    tmp_path: Path, today: dict[str, str]
) -> None:
    found = recipes(tmp_path / "other", **{SEGMENTER.name: "trainer: {max_steps: 99}"})
    assert [row for row in today if found[row] != today[row]] == ["mpm"]
