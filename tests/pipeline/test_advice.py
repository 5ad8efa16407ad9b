"""What a message advises helps: a damaged file of a complete run comes back."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.evaluation.summaries import RobustnessSummary
from pipeline.report.reading.segmenter import category_tables
from pipeline.runs.manifest import Manifest
from pipeline.runs.metrics import Metrics
from pipeline.runs.stage_commands import stage_command
from pipeline.runs.stages import STAGES
from tests.pipeline.commands import PROJECT


def again(stage: str, run: Path, data: Path, runs: Path) -> list[str]:
    """The command that made `run`, a copy of a run below `runs`."""
    row = STAGES[stage]
    return stage_command(
        row,
        run,
        {folder: data / folder for folder in row.folders},
        configs=("small", PROJECT / "tests" / "configs" / f"{stage}.yaml"),
        earlier=runs / row.earlier.stage if row.earlier else None,
    )


@pytest.mark.parametrize(
    ("stage", "name", "read", "advice"),
    [
        ("stage2_pseudolabels", "manifest.json", Manifest.read, "delete it and run that stage"),
        ("stage1_segmenter", "manifest.json", Manifest.read, "delete it and run that stage"),
        ("stage1_segmenter", "metrics.json", Metrics.find, "delete it and .*subcommand validate"),
        ("stage1_segmenter", "per_category.json", category_tables, "subcommand validate"),
        ("evaluate", "summary.json", RobustnessSummary.read, "delete it and run make evaluate"),
    ],
)
def test_a_damaged_file_comes_back_as_advised(
    stage: str,
    name: str,
    read: Callable[[Path], object],
    advice: str,
    shapes_root: Path,
    finished_runs: Path,
    tmp_path: Path,
) -> None:
    source = finished_runs / stage / ("stage3_mpm" if stage == "evaluate" else "")
    run = Path(shutil.copytree(source, tmp_path / source.name))
    before = json.loads((run / name).read_text())
    (run / name).write_text("{ cut")
    with pytest.raises(ValueError, match=rf"{name} is damaged .*{advice}"):
        read(run)
    command = again(stage, run, shapes_root, finished_runs)
    if "delete it" in advice:
        (run / name).unlink()
    if "validate" in advice:
        command[command.index("fit")] = "validate"
    main(command)
    read(run)
    after = json.loads((run / name).read_text())
    assert after.keys() == before.keys()
    assert Manifest.read(run).is_complete
