"""Every stage as a job that loses a node, and goes on with another number of processes."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from pipeline.cli import main
from pipeline.runs.manifest import Manifest
from tests.pipeline.commands import PROJECT, stage_args
from tests.pipeline.nodes.cluster import Job, Launcher, sbatch
from tests.pipeline.test_stage3_exactness import StepRecorder

BATCH = 8  # images of a step over all processes
LATEST_END = 300.0  # seconds that what is left of a job may go on after the loss of a node


@dataclass
class Rehearsal:
    """One stage and its run folder.

    Attributes:
        script: the batch script.
        run: the run folder.
        folder: for files of the test.
        data: folder of the data set.
        writer: callback of the stage.
        settings: further settings of all jobs.
    """

    script: str
    run: Path
    folder: Path
    data: Path
    writer: str
    settings: tuple[str, ...] = ()

    def start(self, nodes: int, tasks: int, launcher: Launcher) -> Job:
        """Starts a job on so many nodes, with a pause after each batch."""
        here = f"{__package__}.cluster.SlowSteps"
        names = [f"{StepRecorder.__module__}.StepRecorder", here, self.writer]
        overlay = self.folder / "overlay.yaml"
        callbacks = [{"class_path": name} for name in names]
        overlay.write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
        tiny = PROJECT / "tests" / "configs" / f"{self.script}.yaml"
        return sbatch(
            self.script,
            self.folder,
            nodes,
            tasks,
            launcher,
            *self.settings,
            IMAGENET=str(self.data / "imagenet"),
            PINPP=str(self.data / "pinpp"),
            RUNS=str(self.folder),
            CONFIG=f"small {tiny} {overlay}",
            BATCH=str(BATCH),
        )

    def lose_a_node(
        self, launcher: Launcher, node: int, in_the_middle: Callable[[], bool], tasks: int = 2
    ) -> str:
        """Two nodes of so many processes, one of which is lost; what the job printed."""
        job = self.start(2, tasks, launcher)
        job.kill_node_when(node, in_the_middle)
        code, output = job.finish(LATEST_END)
        assert code != 0, output
        assert not Manifest.read(self.run).is_complete
        return output

    def go_on(self, nodes: int, tasks: int, launcher: Launcher) -> None:
        """The same script on other nodes, to the end."""
        code, output = self.start(nodes, tasks, launcher).finish()
        assert code == 0, output
        assert Manifest.read(self.run).is_complete

    def last_step(self) -> int:
        """Step of the last checkpoint, 0 without one."""
        last = self.run / "checkpoints" / "last.ckpt"
        return torch.load(last, weights_only=True)["global_step"] if last.is_file() else 0

    def images_of_steps(self, processes: int) -> dict[int, list[str]]:
        """Images of every step over all processes, and forgets them."""
        found: dict[int, list[str]] = {}
        for rank in range(processes):
            file = self.run / f"steps_{rank}.jsonl"
            for line in file.read_text().splitlines():
                entry: dict[str, Any] = json.loads(line)
                found.setdefault(entry["step"], []).extend(entry["keys"])
            file.unlink()
        return {step: sorted(keys) for step, keys in found.items() if len(keys) == BATCH}


@pytest.fixture
def rehearse(finished_runs: Path, shapes_root: Path, tmp_path: Path) -> Callable[..., Rehearsal]:
    """Makes the rehearsal of a stage, with the runs that it reads."""

    def make(script: str, writer: str, *settings: str, run: str = "") -> Rehearsal:
        for name in ("stage1_segmenter", "stage2_pseudolabels", "stage3_mpm"):
            if name != script:
                shutil.copytree(finished_runs / name, tmp_path / name)
        return Rehearsal(
            script, tmp_path / (run or script), tmp_path, shapes_root, writer, settings
        )

    return make


@pytest.mark.parametrize(
    ("stage", "writer", "steps", "epoch", "middle"),
    [
        ("stage1_segmenter", "SegmenterMetrics", 9, 3, 4),
        ("stage3_mpm", "ExportRecogniser", 12, 4, 5),
    ],
)
@pytest.mark.slow
def test_training_goes_on_with_the_images_that_were_left(
    stage: str, writer: str, steps: int, epoch: int, middle: int, rehearse: Callable[..., Rehearsal]
) -> None:
    rehearsal = rehearse(stage, writer)
    if stage == "stage1_segmenter":  # its own split has fewer images to validate on than processes
        held_out = f"--data.init_args.pinpp_val={rehearsal.data / 'val_parts'}"
        rehearsal.settings = (f"--trainer.max_steps={steps}", held_out)
    rehearsal.lose_a_node("torchrun", 1, lambda: rehearsal.last_step() >= middle)
    reached = rehearsal.last_step()
    assert middle <= reached < steps
    before = rehearsal.images_of_steps(4)
    assert before.keys() >= {*range(1, reached + 1)}
    rehearsal.go_on(1, 2, "srun")
    after = rehearsal.images_of_steps(2)
    assert after.keys() == {*range(reached + 1, steps + 1)}
    assert rehearsal.last_step() == steps
    for step in before.keys() & after.keys():  # done, and lost with the node
        assert before[step] == after[step]
    every = before | after
    for start in range(1, steps + 1 - epoch, epoch):
        keys = [key for step in range(start, start + epoch) for key in every[step]]
        assert len({*keys}) == len(keys)  # none was left out for another


@pytest.mark.parametrize(
    ("tasks", "then"),
    [
        pytest.param(1, (1, 1, "srun"), id="short"),
        pytest.param(2, (2, 1, "torchrun"), id="long", marks=pytest.mark.slow),
    ],
)
def test_labels_are_those_of_an_uninterrupted_run(
    tasks: int,
    then: tuple[int, int, Launcher],
    finished_runs: Path,
    rehearse: Callable[..., Rehearsal],
) -> None:
    rehearsal = rehearse(
        "stage2_pseudolabels", "PseudoLabelShards", "--data.init_args.shard_size=2"
    )
    labels = rehearsal.run / "labels"
    rehearsal.lose_a_node("srun", 0, lambda: any(labels.glob("*.parquet")), tasks)
    there = {path: path.stat().st_mtime_ns for path in labels.glob("*.parquet")}
    assert 0 < len(there) < 18
    rehearsal.go_on(*then)
    assert all(path.stat().st_mtime_ns == time for path, time in there.items())
    assert _tables(labels) == _tables(finished_runs / "stage2_pseudolabels" / "labels")


@pytest.mark.slow
def test_outcomes_are_those_of_an_uninterrupted_evaluation(
    finished_runs: Path, shapes_root: Path, tmp_path: Path, rehearse: Callable[..., Rehearsal]
) -> None:
    single = "--data.init_args.chunk_size=1"
    rehearsal = rehearse("evaluate", "RobustnessRecords", single, run="evaluate/stage3_mpm")
    whole = tmp_path / "whole"
    main([*stage_args("evaluate", shapes_root, tmp_path, single, name="whole")])
    records = rehearsal.run / "records"
    output = rehearsal.lose_a_node("torchrun", 1, lambda: any(records.glob("*/*.parquet")))
    assert "was lost" in output
    assert len([*records.glob("*/*.parquet")]) < 18
    rehearsal.go_on(1, 2, "srun")
    for threat in ("clean", "pgd"):
        assert _tables(records / threat) == _tables(whole / "records" / threat)
    summaries = [json.loads((run / "summary.json").read_text()) for run in (rehearsal.run, whole)]
    assert summaries[0]["threats"] == summaries[1]["threats"]


def _tables(folder: Path) -> list[dict[str, Any]]:
    """All rows of a folder's files, in order."""
    return pa.concat_tables(
        pq.read_table(path) for path in sorted(folder.glob("*.parquet"))
    ).to_pylist()
