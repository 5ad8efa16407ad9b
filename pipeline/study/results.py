"""What the runs of a study found: read from their folders, one row a run."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from datamodules.files.atomic_files import write_text
from datamodules.files.json_files import write_json
from pipeline.evaluation.summaries import RobustnessSummary
from pipeline.export.inference_cost import inference_cost
from pipeline.runs.manifest import MANIFEST, Manifest, sha256
from pipeline.study.commands import StudyCommands
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
        seed: of the training.
        accuracies: by threat, in [0, 1]; empty if the run is not complete.
        images: that each accuracy was measured on.
        parameters: at inference.
        flops: at inference, of one image.
    """

    row: str
    title: str
    seed: int
    accuracies: dict[str, float] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    parameters: int | None = None
    flops: int | None = None


def collect(commands: StudyCommands, row: Row, seed: int) -> Result:
    """Reads the outcome of one row and seed, without accuracies if it is not complete."""
    model, outcome = commands.model(row, seed), commands.outcome(row, seed)
    empty = Result(row.name, row.title, seed)
    manifests = [Manifest.find(run) for run in (model, outcome)]
    if not all(manifest and manifest.is_complete for manifest in manifests):
        return empty
    arguments = Manifest.read(outcome).data_arguments
    # the records hold more threats when fewer are asked for than before
    asked = arguments["images"]
    threats = [threat for threat in RobustnessSummary.read(outcome).threats if threat.name in asked]
    parameters, flops = _cost(commands.folder, model, arguments["image_size"])
    return Result(
        row.name,
        row.title,
        seed,
        {threat.name: threat.accuracy for threat in threats},
        {threat.name: threat.n for threat in threats},
        parameters,
        flops,
    )


def collect_all(commands: StudyCommands, rows: Sequence[Row], seeds: int) -> list[Result]:
    """The outcomes of all rows and seeds, by row and then by seed."""
    return [collect(commands, row, seed) for row in rows for seed in range(seeds)]


def write_results(commands: StudyCommands, rows: Sequence[Row], seeds: int) -> list[Result]:
    """Writes `results.json` and `results.csv` below the study's folder, one row a run."""
    results = collect_all(commands, rows, seeds)
    write_json(commands.folder / "results.json", {"runs": [asdict(result) for result in results]})
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    numbers = [f"images_{threat}" for threat in THREATS]
    writer.writerow(["row", "seed", "state", *THREATS, *numbers, "parameters", "flops"])
    for result in results:
        writer.writerow(
            [
                result.row,
                result.seed,
                "complete" if result.accuracies else "not run",
                *(result.accuracies.get(threat) for threat in THREATS),
                *(result.images.get(threat) for threat in THREATS),
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
