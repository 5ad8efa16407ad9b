"""Outcomes of the generalisation evaluation: per-image records as they come, then a summary."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from scipy.stats import norm

from datamodules.evaluation.attack_units import wilson_interval
from datamodules.evaluation.evaluation_sets import EvaluationSet
from datamodules.files.errors import UserError
from datamodules.files.json_files import write_json
from datamodules.generalisation import RECORD_SCHEMA, EvaluationUnit, GeneralisationDataModule
from modules.generalisation_evaluator import GeneralisationEvaluator
from modules.weights.classifier_folder import fingerprint
from pipeline.evaluation.records import (
    accuracy_line,
    await_records,
    joined_settings,
    write_record,
)


class GeneralisationRecords(Callback):
    """Writes `records/<set>/<chunk>.parquet` and `summary.json`.

    A record is written whole when its unit is done, so a killed run goes on with the units that
    have none. Records made under other settings are refused. The summary has a row for every
    set, those that could not be measured with their reason.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compares the settings with those of the records in the run folder.

        Raises:
            UserError: if the model, or the settings of a set that has records, differ.
        """
        module, data = _parts(trainer, pl_module)
        path = Path(trainer.default_root_dir) / "records" / "settings.json"
        sets = {found.name: data.settings_of(found) for found in data.sets if not found.missing}
        settings = joined_settings(
            path,
            {"model": fingerprint(module.weights), "sets": sets},
            "sets",
            "use another run folder or delete the records of that set and its entry in "
            f"{path.name}",
        )
        if trainer.is_global_zero:
            write_json(path, settings)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Writes the record of one unit."""
        unit = EvaluationUnit(0, batch["set"], batch["chunk"], [])
        path = unit.record(Path(trainer.default_root_dir))
        write_record(path, batch, outputs, RECORD_SCHEMA)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Sums up when all processes are done; also where there was nothing left to do.

        Lightning calls no other hook at the end of a test without batches.
        """
        module, data = _parts(trainer, pl_module)
        root = Path(trainer.default_root_dir)
        await_records(trainer, lambda: all(unit.record(root).is_file() for unit in data.units))
        trainer.strategy.barrier("generalisation_records")
        if trainer.is_global_zero:
            left = sum(not unit.is_done(root) for unit in data.units)
            if left:
                rank_zero_info(f"{left} of {len(data.units)} units left: run the same command")
            else:
                rows = [_row(found, data, root) for found in data.sets]
                for row in rows:
                    rank_zero_info(describe(row))
                content = {"model": str(module.weights), "sets": rows, "means": mean_rows(rows)}
                write_json(root / "summary.json", content)
        trainer.strategy.barrier("generalisation_summary")


def mean_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the sets that share the first word of their name, such as `din/...`.

    Args:
        rows: rows of a summary.

    Returns:
        For each first word with several sets: the unweighted mean of their accuracies with the
        interval of a mean of independent proportions, the accuracy over all images (`pooled`),
        and how many of the sets are in it (`measured` of `sets`).
    """
    families: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        families.setdefault(row["name"].split("/")[0], []).append(row)
    means = []
    for name, members in families.items():
        measured = [row for row in members if not row["missing"]]
        compared = members[0]["table"] == "background"  # two sides of a comparison, no family
        if len(members) < 2 or not measured or compared:
            continue
        shares, sizes = [row["accuracy"] for row in measured], [row["n"] for row in measured]
        mean, total = sum(shares) / len(shares), sum(sizes)
        variance = sum(p * (1 - p) / n for p, n in zip(shares, sizes, strict=True))
        half = norm.ppf(0.975) * variance**0.5 / len(shares)
        means.append(
            {
                "name": name,
                "table": members[0]["table"],
                "accuracy": mean,
                "ci95": [max(0.0, mean - half), min(1.0, mean + half)],
                "pooled": sum(p * n for p, n in zip(shares, sizes, strict=True)) / total,
                "n": total,
                "measured": len(measured),
                "sets": len(members),
            }
        )
    return means


def describe(row: dict[str, Any]) -> str:
    """One line about a row of a summary."""
    if row["missing"]:
        return f"{row['name']}: not measured, {row['missing']}"
    return accuracy_line(row)


def _row(found: EvaluationSet, data: GeneralisationDataModule, root: Path) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": found.name,
        "table": found.table,
        "accuracy": None,
        "ci95": None,
        "n": 0,
        "missing": found.missing,
        "figures": {},
    }
    records = [unit.record(root) for unit in data.units if unit.name == found.name]
    if found.missing or not records:
        return row | {"missing": found.missing or "the set has no images"}
    table = pa.concat_tables([pq.read_table(file) for file in records])
    columns = {name: table[name].to_pylist() for name in ("key", "label", "prediction", "correct")}
    right, total = sum(columns["correct"]), table.num_rows
    figures = found.figures(columns["key"], columns["label"], columns["prediction"])
    return row | {
        "accuracy": right / total,
        "ci95": list(wilson_interval(right, total)),
        "n": total,
        "figures": figures,
    }


def _parts(
    trainer: Trainer, pl_module: LightningModule
) -> tuple[GeneralisationEvaluator, GeneralisationDataModule]:
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(pl_module, GeneralisationEvaluator) or not isinstance(
        data, GeneralisationDataModule
    ):
        raise UserError(
            "GeneralisationRecords needs GeneralisationEvaluator and GeneralisationDataModule, not "
            f"{type(pl_module).__name__} and {type(data).__name__}: see configs/generalisation/"
        )
    return pl_module, data
