"""How far stage 2 is, over all processes: images, images per second, time left."""

import re
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import CustomBarColumn
from rich.progress import MofNCompleteColumn, ProgressColumn, TextColumn

SHARD_FILE = re.compile(r"(\d{5,})\.parquet")


class LabelMeter:
    """Counts labelled images of a whole run, as seen from one of its processes.

    Other processes' images are counted when their shard is in the run folder, which is looked at
    every ten seconds.

    Args:
        run: stage 2 run folder.
        lengths: number of images of each shard that was missing at the start.
        total: number of images of all shards.
        alone: there are no other processes.
    """

    def __init__(self, run: Path, lengths: dict[int, int], total: int, alone: bool) -> None:
        self.folder = run / "labels"
        self.lengths = lengths
        self.total = total
        self.before = total - sum(lengths.values())
        self.alone = alone
        self.seen: dict[int, int] = {}
        self.others = 0
        self.started = self._looked = time.monotonic()

    def add(self, shard: int, images: int) -> None:
        """Counts images of this process."""
        self.seen[shard] = self.seen.get(shard, 0) + images
        if not self.alone and time.monotonic() - self._looked > 10:
            self._looked = time.monotonic()
            found = (SHARD_FILE.fullmatch(path.name) for path in self.folder.iterdir())
            shards = {int(match[1]) for match in found if match} - self.seen.keys()
            self.others = sum(self.lengths.get(shard, 0) for shard in shards)

    @property
    def images(self) -> int:
        """Images labelled by all processes in this start of the run."""
        return sum(self.seen.values()) + self.others

    @property
    def rate(self) -> float:
        """Images per second since the start."""
        return self.images / max(1e-9, time.monotonic() - self.started)

    @property
    def done(self) -> int:
        """Images labelled in all, earlier starts included."""
        return self.before + self.images

    def __str__(self) -> str:
        if not self.images:
            return ""
        left = timedelta(seconds=round((self.total - self.done) / self.rate))
        return f"{self.rate:.1f} images/s, {left} left"


class LabelProgressBar(RichProgressBar):
    """Lightning's progress bar counting the images of the whole run, not one process's batches."""

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        """Description, bar, images, throughput and time left."""
        return [
            TextColumn("[progress.description]{task.description}"),
            CustomBarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
        ]

    def show(self, meter: LabelMeter) -> None:
        """Shows the meter's state."""
        if self.is_disabled or self.progress is None:
            return
        if self.predict_progress_bar_id is None:
            self.predict_progress_bar_id = self.progress.add_task(
                "Labelling", total=meter.total, speed=""
            )
        self.progress.update(self.predict_progress_bar_id, completed=meter.done, speed=str(meter))
        self.refresh()

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Nothing: batches are not what is counted."""

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Nothing: `PseudoLabelShards` calls `show`."""
