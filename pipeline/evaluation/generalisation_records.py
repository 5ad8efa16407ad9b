"""Outcomes of the generalisation evaluation: per-image records as they come, then a summary."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from scipy.stats import norm

from datamodules.evaluation.attack_units import wilson_interval
from datamodules.evaluation.evaluation_sets import EvaluationSet
from datamodules.generalisation import RECORD_SCHEMA, EvaluationUnit, GeneralisationDataModule
from modules.generalisation_evaluator import GeneralisationEvaluator
from modules.weights.classifier_folder import fingerprint
from pipeline.evaluation.records import EvaluationRecords, accuracy_line, write_record
from pipeline.evaluation.set_gaps import SetRecords, set_mean
from pipeline.evaluation.summaries import GeneralisationSummary, MeanRow, SetRow


class GeneralisationRecords(EvaluationRecords[GeneralisationEvaluator, GeneralisationDataModule]):
    """Writes `records/<set>/<chunk>.parquet` and `summary.json`.

    The summary has a row for every set, those that could not be measured with their reason.
    """

    evaluator, data = GeneralisationEvaluator, GeneralisationDataModule
    configs = "configs/generalisation/"
    by_name = "sets"
    remedy = (
        "use another run folder or delete the records of that set and its entry in settings.json"
    )

    def settings(
        self, module: GeneralisationEvaluator, data: GeneralisationDataModule
    ) -> dict[str, Any]:
        """The model and the sets that can be measured."""
        sets = {one.name: data.settings_of(one) for one in data.sets if not one.missing}
        return {"model": fingerprint(module.weights), "sets": sets}

    def needed(self, data: GeneralisationDataModule, root: Path) -> Sequence[EvaluationUnit]:
        """All units."""
        return data.units

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
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        unit = EvaluationUnit(0, batch["set"], batch["chunk"], [])
        path = unit.record(Path(trainer.default_root_dir))
        write_record(path, batch, outputs, RECORD_SCHEMA)

    def sum_up(
        self, root: Path, module: GeneralisationEvaluator, data: GeneralisationDataModule
    ) -> None:
        """Writes `summary.json`."""
        rows = [_row(one, data, root) for one in data.sets]
        for row in rows:
            rank_zero_info(accuracy_line(row))
        GeneralisationSummary(str(module.weights), rows, mean_rows(rows, root)).write(root)


def mean_rows(rows: Sequence[SetRow], root: Path) -> list[MeanRow]:
    """Means over the sets that share the first word of their name, such as `din/...`.

    Args:
        rows: rows of a summary.
        root: run folder with their records.

    Returns:
        A row for each first word with several sets.

    Raises:
        UserError: if a record is damaged.
    """
    families: dict[str, list[SetRow]] = {}
    for row in rows:
        families.setdefault(row.name.split("/")[0], []).append(row)
    means = []
    for name, members in families.items():
        measured = {row.name: (row.accuracy, row.n) for row in members if row.accuracy is not None}
        compared = members[0].table == "background"  # two sides of a comparison, no family
        if len(members) < 2 or not measured or compared:
            continue
        shares = list(measured.values())
        total = sum(n for _, n in shares)
        means.append(
            MeanRow(
                name,
                members[0].table,
                accuracy=sum(p for p, _ in shares) / len(shares),
                ci95=_mean_interval(measured, root),
                pooled=sum(p * n for p, n in shares) / total,
                n=total,
                measured=len(measured),
                sets=len(members),
            )
        )
    return means


def _mean_interval(measured: Mapping[str, tuple[float, int]], root: Path) -> list[float]:
    """Interval of the mean of accuracies, given with their number of images by name of the set."""
    found = set_mean(SetRecords(root), dict.fromkeys(measured, 1 / len(measured)))
    if found is not None:
        return [max(0.0, found.low), min(1.0, found.high)]
    # too few images to see how the sets go together: as if each had its own
    mean = sum(p for p, _ in measured.values()) / len(measured)
    variance = sum(p * (1 - p) / n for p, n in measured.values())
    half = float(norm.ppf(0.975)) * variance**0.5 / len(measured)
    return [max(0.0, mean - half), min(1.0, mean + half)]


def _row(one: EvaluationSet, data: GeneralisationDataModule, root: Path) -> SetRow:
    records = [unit.record(root) for unit in data.units if unit.name == one.name]
    if one.missing or not records:
        return SetRow(one.name, one.table, missing=one.missing or "the set has no images")
    table = pa.concat_tables([pq.read_table(file) for file in records])
    columns = {name: table[name].to_pylist() for name in ("key", "label", "prediction", "correct")}
    right, total = sum(columns["correct"]), table.num_rows
    figures = one.figures(columns["key"], columns["label"], columns["prediction"])
    interval = wilson_interval(right, total)
    return SetRow(one.name, one.table, right / total, interval, total, figures=figures)
