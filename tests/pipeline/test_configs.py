"""Names of configurations on the command line."""

import pytest

from datamodules.files.errors import MissingInputError
from pipeline.configs import resolve_configs
from pipeline.runs.stages import EVALUATION, MPM


def test_bare_names_are_files_of_the_stage() -> None:
    args = ["fit", "-c", "small", "-c=sv1", "--config=trades", "--config", "vanilla", "--x=small"]
    folder = MPM.configs
    assert resolve_configs(MPM, args) == [
        "fit",
        *("-c", str(folder / "small.yaml"), f"-c={folder / 'sv1.yaml'}"),
        *(f"--config={folder / 'trades.yaml'}", "--config", str(folder / "vanilla.yaml")),
        "--x=small",
    ]


def test_paths_stay() -> None:
    args = ["fit", "-c", "mine.yaml", "-c=configs/mine", "-c", "/a/b.yaml"]
    assert resolve_configs(MPM, args) == args


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(MissingInputError, match=r"evaluate has no configuration smal: .*pin11.*sm"):
        resolve_configs(EVALUATION, ["test", "-c", "smal"])
