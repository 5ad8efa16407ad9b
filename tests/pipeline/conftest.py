from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.runs.stages import EVALUATION
from tests.pipeline.commands import CHAIN, stage_args
from tests.pipeline.labelling.label_world import make_label_root, predict


@pytest.fixture(scope="session")
def finished_runs(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny runs of all stages and the evaluation, one after the other."""
    runs = tmp_path_factory.mktemp("runs")
    for stage in CHAIN:
        name = "evaluate/stage3_mpm" if stage is EVALUATION else ""
        main(stage_args(stage.name, shapes_root, runs, name=name))
    return runs


@pytest.fixture(scope="session")
def label_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, annotations and a segmenter to label with."""
    root = tmp_path_factory.mktemp("world")
    make_label_root(root)
    return root


@pytest.fixture(scope="session")
def whole_labels(label_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of an uninterrupted run of one process."""
    run = tmp_path_factory.mktemp("whole")
    predict(label_root, run)
    return run
