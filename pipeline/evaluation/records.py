"""What the evaluations' callbacks share: settings, record files, waiting and a line a result."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lightning.pytorch import Trainer

from datamodules.files.atomic_files import written_whole
from datamodules.files.errors import UserError
from pipeline.runs.settings import differences

SECONDS_BETWEEN_LOOKS = 0.5


def joined_settings(path: Path, settings: dict[str, Any], parts: str, mend: str) -> dict[str, Any]:
    """Joins the settings of this run with those that its records were written with.

    Args:
        path: `settings.json` beside the records, which need not exist.
        settings: of this run.
        parts: the entry of settings by name; names that only one side has are no contradiction.
        mend: what to do where the settings differ.

    Returns:
        The settings, with the names of both sides.

    Raises:
        UserError: if they differ.
    """
    if not path.is_file():
        return settings
    old = json.loads(path.read_text())
    joined = settings | {parts: old[parts] | settings[parts]}
    found = differences(old | {parts: settings[parts] | old[parts]}, joined)
    if found:
        raise UserError(
            f"{path.parent} was written with other settings ({'; '.join(found)}): {mend}"
        )
    return joined


def write_record(
    path: Path, batch: Mapping[str, Any], outputs: Mapping[str, Any], schema: pa.Schema
) -> None:
    """Writes the record of one unit whole: keys and labels of the batch, the rest of `outputs`."""
    columns = {"key": batch["key"], "label": batch["label"].cpu().numpy()}
    names = [name for name in schema.names if name not in columns]
    columns |= {name: np.asarray(outputs[name]) for name in names}
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        pq.write_table(pa.table(columns, schema=schema), partial)


def await_records(trainer: Trainer, all_written: Callable[[], bool]) -> None:
    """Waits for the records of the other processes, unless the run is cut short on purpose.

    Processes look for files, since a collective operation would time out when attacks differ by
    hours.
    """
    limit = trainer.limit_test_batches
    if limit == 1.0 and isinstance(limit, float):
        while trainer.world_size > 1 and not all_written():
            time.sleep(SECONDS_BETWEEN_LOOKS)


def accuracy_line(row: Mapping[str, Any]) -> str:
    """One line about a measured row of a summary."""
    low, high = row["ci95"]
    return (
        f"{row['name']}: {row['accuracy']:.1%} of {row['n']} images "
        f"(95 % interval {low:.1%} to {high:.1%})"
    )
