"""Builds a training from its command line and times its loader and some of its steps."""

import itertools
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch.utils.data import DataLoader

from datamodules.files.errors import UserError
from datamodules.part_supervised import PartSupervisedDataModule
from pipeline.cli import PipelineCLI
from pipeline.estimate.clocks import StepClock, StepFlops
from pipeline.estimate.extent import asked_devices, at_side, images_a_device, kinds_of_steps
from pipeline.estimate.gpu_peaks import peak_tflops
from pipeline.runs.process_state import trained_products
from pipeline.runs.stages import MPM, SEGMENTER

MEASURED = {stage.name: stage for stage in (SEGMENTER, MPM)}
# What the measuring trainer takes over; it runs on one device and without the run's callbacks,
# but for the average of the weights, which costs time at every step.
TRAINER_SETTINGS = (
    "accelerator",
    "precision",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "benchmark",
    "deterministic",
)
WARM_UP_STEPS = 3
KEPT_BATCHES = 4  # in memory, handed out again and again
COUNTED_IMAGES = 4  # for the FLOPs, counted on the CPU


@dataclass(frozen=True)
class Phase:
    """Steps of one kind.

    Attributes:
        name: kind of the steps and, where crops grow, their size.
        share: of all steps, in (0, 1].
        step_seconds: of one batch.
        flops: of one image.
    """

    name: str
    share: float
    step_seconds: float
    flops: float


@dataclass(frozen=True)
class Estimate:
    """What was measured, and what the whole configuration takes.

    Attributes:
        device: name of the device that was timed, or `CPU`.
        precision: of the trainer.
        batch_size: images of one step on one device.
        workers: loading processes of one device.
        loader_speed: images per second of the loader alone.
        phases: kinds of steps.
        memory: peak of GPU memory in bytes, 0 on a CPU.
        peak: TFLOP/s that the device can reach, None if unknown.
        devices: how many are asked for.
        images: that one of these devices sees in the whole run.
        hours: of the whole run.
    """

    device: str
    precision: str
    batch_size: int
    workers: int
    loader_speed: float
    phases: tuple[Phase, ...]
    memory: int
    peak: float | None
    devices: int
    images: float
    hours: float

    @property
    def flops(self) -> float:
        """Of the whole run on all devices."""
        return self.images * self.devices * sum(p.share * p.flops for p in self.phases)


def hours(phases: Sequence[Phase], batch_size: int, loader_speed: float, images: float) -> float:
    """Of a whole run; the slower of loader and step sets the pace of each kind of steps.

    Args:
        phases: kinds of steps.
        batch_size: images of one step on one device.
        loader_speed: images per second of one device's loader.
        images: that one device sees in the run.
    """
    seconds = sum(p.share * max(p.step_seconds / batch_size, 1 / loader_speed) for p in phases)
    return images * seconds / 3600


class EstimateCLI(PipelineCLI):
    """A stage's command line that builds data and module, touches no run folder and runs nothing.

    Args:
        stage: one of `MEASURED`.
        args: as for `PipelineCLI`.
    """

    def before_instantiate_classes(self) -> None:
        """Leaves the run folder alone."""

    def require_writer(self) -> None:
        """Nothing is to be written."""

    def instantiate_trainer(self, **kwargs: object) -> Trainer:
        """A trainer that is never used."""
        return Trainer(logger=False, enable_checkpointing=False, **kwargs)  # type: ignore[arg-type]

    def _run_subcommand(self, subcommand: str) -> None:
        """Runs nothing; the measurement does."""

    def fit(self, batches: list[Any], clock: Callback, root: str, **changes: Any) -> None:
        """Trains on the given batches, once each.

        Args:
            batches: as the loader hands them over.
            clock: what watches the steps.
            root: folder that the trainer may write to.
            changes: arguments of the trainer in place of the configuration's.
        """
        given = self.config_init[self.subcommand].trainer
        decay = self.config[self.subcommand].get("ema_decay")
        averages = [] if decay is None else [EMAWeightAveraging(decay=decay)]
        settings = {key: given.get(key) for key in TRAINER_SETTINGS}
        given_out: DataLoader[Any] = DataLoader(
            batches,  # type: ignore[arg-type]
            batch_size=None,
            collate_fn=_unchanged,
        )
        self.datamodule.train_dataloader = lambda: given_out
        trainer = Trainer(
            **{**settings, "callbacks": [*averages, clock], **changes},
            devices=1,
            max_epochs=1,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=root,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(self.model, datamodule=self.datamodule)


def estimate(args: Sequence[str], devices: int | None = None, steps: int = 10) -> Estimate:
    """Builds a training from its command line and times loader and steps.

    Args:
        args: stage and arguments of its subcommand `fit`, as for `pipeline.cli.main`.
        devices: devices of the run; None for those of the configuration.
        steps: optimiser steps of each kind that are timed, at least 1; some more warm up.

    Raises:
        UserError: if the stage has no training, or an input is wrong.
        MissingInputError: if an input is missing.
    """
    if tuple(args[1:2]) != ("fit",) or args[0] not in MEASURED:
        raise UserError(f"estimates are for: {', '.join(f'{name} fit' for name in MEASURED)}")
    if steps < 1:
        raise UserError(f"steps={steps}: time at least 1 step")
    with trained_products(), tempfile.TemporaryDirectory() as root:
        return _measure(EstimateCLI(MEASURED[args[0]], args[1:]), devices, steps, root)


def _measure(cli: EstimateCLI, devices: int | None, steps: int, root: str) -> Estimate:
    trainer, data = cli.config_init[cli.subcommand].trainer, cli.datamodule
    if isinstance(data, PartSupervisedDataModule) and not data.composites.is_file():
        data.composites = Path(root) / "composites.arrow"
    data.prepare_data()
    data.setup("fit")
    loader = data.train_dataloader()
    per_epoch, batch_size = len(loader) * loader.batch_size, loader.batch_size
    batches, loader_speed = _read(loader, steps)
    devices = devices or asked_devices(trainer)
    shares = kinds_of_steps(cli.model, cli.datamodule, trainer.max_epochs)
    kinds, compiled = list(shares), getattr(cli.model, "compile_network", False)
    few = {key: value[:COUNTED_IMAGES] for key, value in batches[0].items()}
    counter = StepFlops(kinds, 1)
    cli.model.compile_network = False
    plain = {"accelerator": "cpu", "precision": "32-true", "callbacks": [counter]}
    counted = [at_side(few, kind.side) for kind in kinds]
    cli.fit(counted, counter, root, **plain, accumulate_grad_batches=1)
    cli.model.compile_network = compiled
    accumulated = trainer.accumulate_grad_batches or 1
    clock = StepClock(kinds, WARM_UP_STEPS + steps * accumulated)
    cuda = torch.cuda.is_available() and trainer.accelerator in ("auto", "gpu", "cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    timed = []
    for kind in kinds:
        resized = [at_side(batch, kind.side) for batch in batches]
        timed += list(itertools.islice(itertools.cycle(resized), clock.length))
    cli.fit(timed, clock, root)
    phases = tuple(
        Phase(
            str(kind),
            share,
            clock.step_seconds(index, WARM_UP_STEPS, accumulated),
            counter.counts[index] / len(few["label"]),
        )
        for index, (kind, share) in enumerate(shares.items())
    )
    device = torch.cuda.get_device_name() if cuda else "CPU"
    precision = str(trainer.precision or "32-true")
    images = images_a_device(trainer, per_epoch, batch_size * accumulated, devices)
    return Estimate(
        device=device,
        precision=precision,
        batch_size=batch_size,
        workers=loader.num_workers,
        loader_speed=loader_speed,
        phases=phases,
        memory=torch.cuda.max_memory_reserved() if cuda else 0,
        peak=peak_tflops(device, precision) if cuda else None,
        devices=devices,
        images=images,
        hours=hours(phases, batch_size, loader_speed, images),
    )


def _read(loader: DataLoader[Any], batches: int) -> tuple[list[Any], float]:
    """A few batches, and images per second once all workers are under way."""
    workers = max(1, loader.num_workers)
    # The workers' first batches come all at once, so whole rounds of them are timed.
    rounds = math.ceil(batches / workers) + 1
    stream = itertools.chain.from_iterable(itertools.repeat(loader))
    kept: list[Any] = []
    marks: list[float] = []
    for batch in itertools.islice(stream, workers * rounds):
        marks.append(time.perf_counter())
        if len(kept) < KEPT_BATCHES:
            kept.append(batch)
    timed = workers * (rounds - 1)
    return kept, timed * (loader.batch_size or 1) / (marks[-1] - marks[workers - 1])


def _unchanged(batch: Any) -> Any:
    return batch
