from pathlib import Path

import pytest

from pipeline.cli import main
from tests.pipeline.commands import SUBCOMMANDS, stage_args


@pytest.fixture(scope="session")
def finished_runs(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny runs of all stages and the evaluation, one after the other."""
    runs = tmp_path_factory.mktemp("runs")
    for stage in SUBCOMMANDS:
        name = "evaluate/stage3_mpm" if stage == "evaluate" else ""
        main(stage_args(stage, shapes_root, runs, name=name))
    return runs
