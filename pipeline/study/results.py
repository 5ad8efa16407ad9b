"""What the runs of a study found: read from their folders, one row a run."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datamodules.files.atomic_files import write_text
from datamodules.files.json_files import write_json
from pipeline.evaluation.outcome_tables import read_outcomes
from pipeline.export.inference_cost import inference_cost
from pipeline.runs.manifest import MANIFEST, Manifest, sha256
from pipeline.study.commands import StudyCommands, Training
from pipeline.study.rows import Row

THREATS = {
    "clean": "clean",
    "apgd_4": "APGD 4/255",
    "apgd_8": "APGD 8/255",
    "autoattack": "AutoAttack 4/255",
}
"""What the evaluation measures, and its titles."""


@dataclass(frozen=True)
class Result:
    """One run, or the place of one that was not made.

    Attributes:
        row: name of the row.
        title: of the row.
        seed: of the repetition.
        fold: of the cross-validation; None without one.
        outcomes: by threat and key of an image, whether the answer was right; empty if the run is
            not complete.
        parameters: at inference.
        flops: at inference, of one image.
    """

    row: str
    title: str
    seed: int
    fold: int | None = None
    outcomes: dict[str, dict[str, bool]] = field(default_factory=dict)
    parameters: int | None = None
    flops: int | None = None

    @property
    def name(self) -> str:
        """Seed and fold, in words."""
        return f"seed {self.seed}" + ("" if self.fold is None else f", fold {self.fold}")

    @property
    def accuracies(self) -> dict[str, float]:
        """Accuracy in [0, 1] by threat."""
        return {name: sum(right.values()) / len(right) for name, right in self.outcomes.items()}


def collect(commands: StudyCommands, training: Training) -> Result:
    """Reads the outcome of one training.

    Without images if it is not complete, or was made by other configurations than today's.
    """
    model, outcome = commands.model(training), commands.outcome(training)
    row = training.row
    empty = Result(row.name, row.title, training.seed, training.fold)
    manifests = [Manifest.find(run) for run in (model, outcome)]
    if not all(manifest and manifest.is_complete for manifest in manifests):
        return empty
    steps = commands.training(training), commands.evaluation(training)
    if not all(step.has_todays_settings(commands.marks) for step in steps):
        return empty
    arguments = Manifest.read(outcome).data_arguments
    # the records hold more threats when fewer are asked for than before
    outcomes = {name: read_outcomes(outcome, name).robust for name in arguments["images"]}
    parameters, flops = _cost(commands.folder, model, arguments["image_size"])
    return Result(row.name, row.title, training.seed, training.fold, outcomes, parameters, flops)


def write_results(commands: StudyCommands, rows: Sequence[Row], seeds: int) -> list[Result]:
    """Writes `results.csv` below the study's folder, one row a run."""
    results = [collect(commands, training) for training in commands.trainings(rows, seeds)]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    numbers = [f"images_{threat}" for threat in THREATS]
    writer.writerow(["row", "seed", "fold", "state", *THREATS, *numbers, "parameters", "flops"])
    for result in results:
        images = {threat: len(right) for threat, right in result.outcomes.items()}
        writer.writerow(
            [
                result.row,
                result.seed,
                result.fold,
                "complete" if result.outcomes else "not run",
                *(result.accuracies.get(threat) for threat in THREATS),
                *(images.get(threat) for threat in THREATS),
                result.parameters,
                result.flops,
            ]
        )
    write_text(commands.folder / "results.csv", table.getvalue())
    return results


def _cost(folder: Path, model: Path, image_size: int) -> tuple[int, int]:
    """Parameters and FLOPs of a model at inference, kept in `costs/`."""
    key = sha256(model / MANIFEST)
    kept = folder / "costs" / f"{model.parent.name}_{model.name}.json"
    if kept.is_file():
        cost = json.loads(kept.read_text())
        if (cost["model"], cost["image_size"]) == (key, image_size):
            return cost["parameters"], cost["flops"]
    parameters, flops = inference_cost(model, image_size)
    cost = {"model": key, "image_size": image_size, "parameters": parameters, "flops": flops}
    write_json(kept, cost)
    return parameters, flops
