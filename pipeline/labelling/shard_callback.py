"""Stage 2 as a Lightning callback: what it refuses, writes, shows and checks at the end."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.exceptions import SIGTERMException

from datamodules.files.errors import UserError
from datamodules.imagenet_shards import ImageNetShardsDataModule
from datamodules.labels.label_set import provenance_hash, shard_path
from datamodules.labels.pseudo_labels import count_errors
from datamodules.labels.shard_claims import OnlyStart, ShardClaims, cannot_write
from modules.pseudo_label_writer import PseudoLabelWriter
from pipeline.labelling.progress import LabelMeter, LabelProgressBar
from pipeline.labelling.provenance import LabelOrigin, check_vocabulary
from pipeline.labelling.shard_writer import ShardWriter
from pipeline.runs.manifest import sha256

LINE_EVERY = 60.0  # seconds between two lines of progress where there is no bar


class PseudoLabelShards(BasePredictionWriter):
    """Collects predictions and writes each shard once it is whole.

    Shards go to `labels/<shard>.parquet` below the trainer's `default_root_dir`, with
    `labels/_shards.json` saying what they were made of. A shard that is there is valid, wherever
    a run was cut; the same command makes those that are missing.

    No process waits for another at the end: the one that leaves last makes sure that no shard is
    missing. SIGTERM ends each process after its batch. A second start of the run is refused while
    rank 0 of the first labels.

    Args:
        threads: background threads that encode masks and write shards.
        pending: batches that may wait for them, more take more memory.
        max_error_share: the run ends, with the reason, at a shard of which a larger share of
            images could not be labelled; that shard is not written.

    Attributes:
        is_last: this process was the last to leave, and no shard is missing.
    """

    def __init__(self, threads: int = 2, pending: int = 4, max_error_share: float = 0.5) -> None:
        if threads < 1 or pending < 1:
            raise UserError(f"threads ({threads}) and pending ({pending}) must be at least 1")
        if not 0 <= max_error_share <= 1:
            raise UserError(f"max_error_share ({max_error_share}) must be in [0, 1]")
        super().__init__("batch")
        self.max_error_share = max_error_share
        self.threads = threads
        self.pending = pending
        self.is_last = False
        self._writer: ShardWriter | None = None
        self._only: OnlyStart | None = None
        self._stopped = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses labels or weights that do not fit, and a second start, before any work.

        Raises:
            UserError: on every rank, so that none waits for the others.
        """
        if stage != "predict" or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        refusal, source = "", ""
        run = Path(trainer.default_root_dir)
        if trainer.is_global_zero:
            try:
                self._claim(trainer, pl_module)
                self._only = OnlyStart(run / "labels")
                source = provenance_hash(run)
            except ValueError as error:
                refusal = str(error)
            except OSError as error:
                refusal = str(cannot_write(run / "labels", error))
        refusal, self._source = trainer.strategy.broadcast((refusal, source))
        if refusal:
            raise UserError(refusal)

    def _claim(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = _data(trainer)
        assert isinstance(pl_module, PseudoLabelWriter)
        check_vocabulary(pl_module.checkpoint, data.vocabulary)
        settings = {"segmenter_sha256": sha256(pl_module.checkpoint), **pl_module.settings}
        LabelOrigin(**data.provenance, settings=settings).claim(Path(trainer.default_root_dir))

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the writer and the count, without rows of an earlier, interrupted run."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        run, data = Path(trainer.default_root_dir), _data(trainer)
        self._writer = ShardWriter(
            run, self._source, self.threads, self.pending, self.max_error_share
        )
        self._meter = LabelMeter(
            run,
            {shard: data.shard_length(shard) for shard in data.missing},
            len(data.images),
            alone=trainer.world_size == 1,
        )
        self._line_at = time.monotonic() + LINE_EVERY
        self.is_last = self._stopped = False
        if threading.current_thread() is threading.main_thread():
            # Lightning's own handler holds a collective, for which processes that are done are
            # missing, and predicting never asks whether it ran. Its teardown restores the signal.
            signal.signal(signal.SIGTERM, lambda number, frame: self._stop(trainer, number, frame))

    def _stop(self, trainer: Trainer, number: int, frame: FrameType | None) -> None:
        for process in _children(trainer):
            process.send_signal(number)
        self._stopped = True

    def _stop_if_told(self, trainer: Trainer) -> None:
        if self._stopped:
            # One process a node says so: Lightning kills the parent of one that does not end well.
            raise SIGTERMException(0 if trainer.local_rank else 128 + signal.SIGTERM)

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Hands a batch's records to the writer and shows the progress.

        Raises:
            UserError: if a shard cannot be written.
            SIGTERMException: if the process was told to stop.
        """
        if self._writer is None:
            return
        self._stop_if_told(trainer)
        shard = batch["shard"]
        self._writer.add(shard, batch["start"], _data(trainer).shard_length(shard), prediction)
        self._meter.add(shard, len(prediction))
        if not trainer.is_global_zero:
            return
        bar = trainer.progress_bar_callback
        if isinstance(bar, LabelProgressBar):
            bar.show(self._meter)
        if time.monotonic() >= self._line_at:
            self._line_at += LINE_EVERY
            for logger in trainer.loggers:
                logger.log_metrics({"labels/images_per_s": self._meter.rate}, self._meter.done)
            if not isinstance(bar, LabelProgressBar) or not sys.stdout.isatty():
                done, total = self._meter.done, self._meter.total
                print(f"{done:,} of {total:,} images, {self._meter}", flush=True)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finishes writing and leaves; the last to leave looks whether shards are missing.

        Raises:
            UserError: if a shard cannot be written or shards are missing.
        """
        if self._writer is None:
            return
        self._writer.close()
        claims = _data(trainer).claims
        assert claims is not None
        report = {
            "shards": self._writer.shards,
            "errors": self._writer.errors,
            "seconds": time.monotonic() - self._meter.started,
        }
        reports = claims.leave(trainer.global_rank, trainer.world_size, report)
        if reports is not None:
            ShardClaims.clear(claims.folder)
            self._finish(trainer, reports)
        self._await_children(trainer)

    def _finish(self, trainer: Trainer, reports: list[dict[str, Any]]) -> None:
        data = _data(trainer)
        written = {shard for report in reports for shard in report["shards"]}
        missing = [shard for shard in data.missing if shard not in written]
        if missing:
            raise UserError(
                f"{Path(trainer.default_root_dir) / 'labels'} lacks {len(missing)} of "
                f"{data.num_shards} shards, the first is {missing[0]:05d}: run the same command "
                "without trainer.limit_predict_batches"
            )
        self.is_last = True
        images = sum(data.shard_length(shard) for shard in written)
        seconds = max(report["seconds"] for report in reports)
        errors = sum(report["errors"] for report in reports)
        run = Path(trainer.default_root_dir)
        earlier = (shard_path(run, shard) for shard in {*range(data.num_shards)} - written)
        print(
            f"labelled {images:,} images in {timedelta(seconds=round(seconds))}, "
            f"{images / max(seconds, 1e-9):.1f} images/s, {errors:,} could not be labelled; of "
            f"{len(data.images):,} in all, {errors + sum(map(count_errors, earlier)):,} could not",
            flush=True,
        )

    def _await_children(self, trainer: Trainer) -> None:
        """Where this process started the others itself, it outlives them, as their parent."""
        for process in _children(trainer):
            while process.poll() is None:  # wait() would put off signals
                time.sleep(0.1)
            if process.returncode:
                raise UserError(
                    f"a labelling process ended with status {process.returncode}, see its message: "
                    "run the same command again, everything that is there stays"
                )
        self._stop_if_told(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lets other starts of the run in."""
        if self._only:
            self._only.let_go()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Drops the shards that are not whole, and says so if the user stopped the run."""
        if self._writer is not None:
            self._writer.abandon()
        self.teardown(trainer, pl_module, "predict")
        stopped = isinstance(exception, SIGTERMException | KeyboardInterrupt)
        if stopped and self._writer is not None and trainer.is_global_zero:
            print(
                f"stopped after {self._meter.done:,} of {self._meter.total:,} images; the same "
                "command goes on with the shards that are missing",
                flush=True,
            )


def closes_run(trainer: Trainer) -> bool:
    """Whether it is for this process to mark its run as complete.

    That is the last labelling process to leave, which knows that no shard is missing, and in
    stages without `PseudoLabelShards` rank 0.
    """
    labels = [c for c in trainer.callbacks if isinstance(c, PseudoLabelShards)]  # type: ignore[attr-defined]
    return labels[0].is_last if labels else trainer.is_global_zero


def _children(trainer: Trainer) -> list["subprocess.Popen[Any]"]:
    """Processes that Lightning's own launcher started from this one; none under torchrun."""
    return list(getattr(trainer.strategy.launcher, "procs", ()))


def _data(trainer: Trainer) -> ImageNetShardsDataModule:
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, ImageNetShardsDataModule):
        raise UserError(
            f"PseudoLabelShards needs ImageNetShardsDataModule as data, not {type(data).__name__}"
        )
    return data
