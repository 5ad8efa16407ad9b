"""What the evaluations' callbacks share: settings, record files, waiting and a line a result."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from datamodules.files.atomic_files import written_whole
from datamodules.files.errors import UserError
from datamodules.files.json_files import read_json, write_json
from modules.networks.normalisation import Normalise
from modules.networks.preprocessing import ImageFormat
from pipeline.evaluation.class_agreement import refuse_other_classes
from pipeline.evaluation.heartbeats import Heartbeat
from pipeline.evaluation.summaries import SetRow, ThreatRow
from pipeline.runs.refuse_mixing import refuse_mixing

SECONDS_BETWEEN_LOOKS = 0.5


Evaluator = TypeVar("Evaluator", bound=LightningModule)
Data = TypeVar("Data", bound=LightningDataModule)


class Unit(Protocol):
    """Some images whose outcomes are one record file."""

    def record(self, root: Path) -> Path:
        """Where the record lies below a run folder."""

    def is_done(self, root: Path) -> bool:
        """Whether there is a readable record of exactly these images."""


class EvaluationRecords(Callback, ABC, Generic[Evaluator, Data]):
    """Base of the evaluations' callbacks: settings, record files, a summary at the end.

    A record is written whole when its unit is done, so a killed run goes on with the units that
    have none. Records made under other settings are refused.
    """

    evaluator: type[Evaluator]
    data: type[Data]
    configs: str  # folder of its configurations
    by_name: str  # the entry of the settings that may grow from run to run
    remedy = "use another run folder or delete the records"
    heartbeat: Heartbeat | None = None  # of a run of several processes

    @abstractmethod
    def settings(self, module: Evaluator, data: Data) -> dict[str, Any]:
        """What the records depend on.

        Raises:
            UserError: if module and data do not fit each other.
        """

    @abstractmethod
    def needed(self, data: Data, root: Path) -> Sequence[Unit]:
        """Units that the result rests on."""

    @abstractmethod
    def sum_up(self, root: Path, module: Evaluator, data: Data) -> None:
        """Writes the summary from all records."""

    def parts(self, trainer: Trainer, pl_module: LightningModule) -> tuple[Evaluator, Data]:
        """Module and data of the run.

        Raises:
            UserError: if they are of other classes than this callback records.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(pl_module, self.evaluator) or not isinstance(data, self.data):
            raise UserError(
                f"{type(self).__name__} needs {self.evaluator.__name__} and {self.data.__name__}, "
                f"not {type(pl_module).__name__} and {type(data).__name__}: see {self.configs}"
            )
        return pl_module, data

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compares the settings with those of the records in the run folder.

        Raises:
            UserError: if they differ, module and data do not fit this callback, or the model was
                trained on other classes than the data has.
        """
        module, data = self.parts(trainer, pl_module)
        refuse_other_classes(module, data)
        for line in image_lines(module, data):
            rank_zero_info(line)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if trainer.world_size > 1:
            root = Path(trainer.default_root_dir)
            self.heartbeat = Heartbeat(root, trainer.global_rank, trainer.world_size)
        path = Path(trainer.default_root_dir) / "records" / "settings.json"
        origin = self.settings(module, data)
        old = read_json(path, self.remedy) if path.is_file() else {}
        if unknown := forget_unknown_files(old, origin, self.by_name):
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            rank_zero_info(
                f"{path.parent} was begun with an earlier version, which did not note the files of "
                f"{unknown[0]}{more}: if they are others now, {self.remedy}"
            )
        settings = refuse_mixing(path, origin, self.remedy, growing=self.by_name)
        if trainer.is_global_zero:
            write_json(path, settings)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Sums up when all processes are done; also where there was nothing left to do.

        Lightning calls no other hook at the end of a test without batches.

        Raises:
            UserError: if another process is lost, for whose records it would wait in vain.
        """
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        module, data = self.parts(trainer, pl_module)
        root = Path(trainer.default_root_dir)
        await_records(
            trainer,
            lambda: all(unit.record(root).is_file() for unit in self.needed(data, root)),
            self.heartbeat,
        )
        trainer.strategy.barrier("records")
        if trainer.is_global_zero:
            needed = self.needed(data, root)
            left = sum(not unit.is_done(root) for unit in needed)
            if left:
                rank_zero_info(f"{left} of {len(needed)} units left: run the same command")
            else:
                self.sum_up(root, module, data)
        trainer.strategy.barrier("summary")
        if self.heartbeat is not None:
            self.heartbeat.end()


def forget_unknown_files(old: Mapping[str, Any], new: dict[str, Any], by_name: str) -> list[str]:
    """Takes `files` out of settings where the record has none, so that they are not compared.

    Args:
        old: settings of the records; of an earlier version they have no `files`.
        new: those of now, which are changed.
        by_name: the entry with settings by name.

    Returns:
        What cannot be compared, by name.
    """
    pairs: dict[str, tuple[Mapping[str, Any], dict[str, Any]]] = {"the images": (old, new)}
    pairs |= {
        name: (one, new[by_name][name])
        for name, one in (old.get(by_name) or {}).items()
        if name in new[by_name]
    }
    unknown = [name for name, (a, b) in pairs.items() if a and "files" in b and "files" not in a]
    for name in unknown:
        pairs[name][1].pop("files")
    return unknown


def write_record(
    path: Path,
    batch: Mapping[str, Any],
    outputs: Mapping[str, Any],
    schema: pa.Schema,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes the record of one unit whole: keys and labels of the batch, the rest of `outputs`.

    `metadata` goes with the file, for what is said of the unit as a whole.
    """
    columns = {"key": batch["key"], "label": batch["label"].cpu().numpy()}
    names = [name for name in schema.names if name not in columns]
    columns |= {name: np.asarray(outputs[name]) for name in names}
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        pq.write_table(pa.table(columns, schema=schema.with_metadata(metadata)), partial)


def await_records(
    trainer: Trainer, all_written: Callable[[], bool], heartbeat: Heartbeat | None
) -> None:
    """Waits for the records of the other processes, unless the run is cut short on purpose.

    Processes look for files, since a collective operation would time out when attacks differ by
    hours.

    Raises:
        UserError: if one of them gives no sign of life any more.
    """
    limit = trainer.limit_test_batches
    if heartbeat is None or limit != 1.0 or not isinstance(limit, float):
        return
    while not all_written():
        if lost := heartbeat.lost():
            raise UserError(
                f"process {', '.join(map(str, lost))} of {trainer.world_size} was lost with units "
                "that have no record: run the same command again, everything that is there stays"
            )
        time.sleep(SECONDS_BETWEEN_LOOKS)


def image_lines(module: Any, data: Any) -> list[str]:
    """How images are normalised, and whether they are made as the model's folder says.

    Args:
        module: evaluator with `network`, `images` and `model_name`.
        data: its data, with `image_size`, `resize` and `interpolation`.
    """
    layers = [layer for layer in module.network.modules() if isinstance(layer, Normalise)]
    lines = [str(layer) for layer in layers]
    if not layers:
        lines.append(f"{module.model_name} takes pixels in [0, 1] as they are")
    wanted: ImageFormat | None = module.images
    if wanted is None:
        return lines
    given = data.image_size, data.resize, data.interpolation
    if given != (wanted.size, wanted.resize, wanted.interpolation):
        size, resize, interpolation = given
        lines.append(
            f"images are {size} of {resize} pixels, {interpolation}, but {module.model_name} was "
            f"made for {wanted}: --data.init_args.image_size={wanted.size} "
            f"--data.init_args.resize={wanted.resize} "
            f"--data.init_args.interpolation={wanted.interpolation} measure it on those"
        )
    return lines


def accuracy_line(row: ThreatRow | SetRow) -> str:
    """One line about a row of a summary."""
    if row.accuracy is None or row.ci95 is None:
        return f"{row.name}: not measured, {getattr(row, 'missing', '')}"
    low, high = row.ci95
    return (
        f"{row.name}: {row.accuracy:.1%} of {row.n} images (95 % interval {low:.1%} to {high:.1%})"
    )
