"""Settings of Lightning's trainer under which a stage would end well and yet be worth nothing."""

import itertools
import re
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer
from torch import nn

from datamodules.files.errors import UserError
from pipeline.runs.stages import Stage

LIMIT = re.compile(r"--trainer\.(limit_(?:train|val|test|predict)_batches|overfit_batches)")


def refuse_unsuited(stage: Stage, subcommand: str, trainer: Any) -> None:
    """Refuses settings that silently give a wrong or useless result.

    Args:
        stage: the stage.
        subcommand: Lightning's.
        trainer: the section `trainer` of the resolved configuration.

    Raises:
        UserError: naming the setting and what to do instead.
    """
    _check_everywhere(stage, trainer)
    _check_precision(stage, trainer)
    if trainer.fast_dev_run:  # leaves nothing, so nothing can be wrong with it
        return
    _check_whole(subcommand, trainer)
    if subcommand == "fit":
        _check_training(trainer)


def numbers_of_batches(args: Sequence[str]) -> dict[str, int]:
    """Limits of batches that a command line gives as whole numbers, by the trainer's name for them.

    The parser may read such a 1 as 1.0, which means all batches: typing caches unions, and where
    another library made `Union[float, int]` first, Lightning's `Union[int, float]` is that one.
    """
    found = {}
    for arg, after in itertools.zip_longest(args, args[1:], fillvalue=""):
        name, equals, value = arg.partition("=")
        limit = LIMIT.fullmatch(name)
        if limit and (value if equals else after).isdecimal():
            found[limit[1]] = int(value if equals else after)
    return found


def refuse_sync_on_cpus(model: nn.Module, trainer: Trainer, converts: bool) -> None:
    """Refuses to train several processes with batch norm that torch synchronises on GPUs alone.

    Args:
        model: the module.
        trainer: its trainer.
        converts: whether the trainer's `sync_batchnorm` is on.

    Raises:
        UserError: naming what asks for it.
    """
    alone = trainer.num_devices * trainer.num_nodes == 1
    if alone or trainer.strategy.root_device.type != "cpu":
        return
    if any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        raise UserError(
            "head_norm SyncBN of several processes works on GPUs alone: give "
            "--model.init_args.detector.head_norm=GN, or one process (--trainer.devices=1)"
        )
    if converts:
        raise UserError(
            "trainer.sync_batchnorm=true of several processes works on GPUs alone: leave it out"
        )


def out_of_time(trainer: Trainer) -> bool:
    """Whether a training was ended by `max_time`, short of its epochs and steps."""
    timers = [one for one in trainer.callbacks if isinstance(one, Timer)]  # type: ignore[attr-defined]
    left = [timer.time_remaining() for timer in timers]
    return any(seconds is not None and seconds <= 0 for seconds in left)


def _check_everywhere(stage: Stage, trainer: Any) -> None:
    if trainer.barebones:
        raise UserError(
            "trainer.barebones=true keeps neither checkpoints nor metrics: leave it out"
        )
    if trainer.use_distributed_sampler:
        raise UserError(
            "trainer.use_distributed_sampler=true would share the images out twice, as the data "
            "modules do it themselves: leave it out"
        )
    if stage.needs_gradients and trainer.inference_mode:
        raise UserError(
            f"trainer.inference_mode=true: attacks need gradients when {stage.name} measures, "
            "leave it out"
        )


def _check_precision(stage: Stage, trainer: Any) -> None:
    precision = str(trainer.precision)
    if precision.endswith("-true") and not precision.startswith(("32", "64")):
        mixed = precision.replace("-true", "-mixed")
        other = f"{mixed}, or 32-true" if stage.trains else "32-true"
        raise UserError(
            f"trainer.precision={precision} keeps the weights themselves in low precision: "
            f"use {other}"
        )
    gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    on_cpu = trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and not gpu)
    if precision in ("16", "16-mixed") and on_cpu:
        raise UserError(
            f"trainer.precision={precision} does not exist on the CPU, where Lightning takes "
            "bfloat16 for it: use bf16-mixed or 32-true"
        )
    if stage.evaluates and precision not in ("None", "32", "32-true", "64", "64-true"):
        raise UserError(
            f"trainer.precision={precision} rounds what the network answers and the gradients of "
            "attacks, so the figures would not be the model's: use 32-true"
        )


def _check_whole(subcommand: str, trainer: Any) -> None:
    """Nothing that is measured, labelled or kept may be of a part of the data unsaid."""
    if trainer.overfit_batches:
        raise UserError(
            f"trainer.overfit_batches={trainer.overfit_batches} trains and measures on a few "
            "batches: leave it out, trainer.fast_dev_run tries a stage and leaves nothing"
        )
    kinds = {"fit": "val", "validate": "val", "test": "test", "predict": "predict"}
    name = f"limit_{kinds[subcommand]}_batches"
    limit = trainer[name]
    if limit is not None and not (isinstance(limit, float) and limit == 1.0):
        result = {"val": "metrics.json", "test": "summary.json", "predict": "labels/"}
        raise UserError(
            f"trainer.{name}={limit}: {result[kinds[subcommand]]} would not be of all images: "
            "leave it out, trainer.fast_dev_run tries a stage and leaves nothing"
        )


def _check_training(trainer: Any) -> None:
    if trainer.enable_checkpointing is False:
        raise UserError(
            "trainer.enable_checkpointing=false: the next stage reads checkpoints/best.ckpt, leave "
            "it out"
        )
    if trainer.limit_train_batches == 0:
        raise UserError("trainer.limit_train_batches=0 trains nothing: leave it out")
    for name in ("max_epochs", "max_steps"):
        value = trainer[name]
        if value is not None and value != -1 and value < 1:
            raise UserError(f"trainer.{name}={value} trains nothing: give at least 1")
    if trainer.max_epochs in (None, -1) and trainer.max_steps in (None, -1):
        raise UserError(
            "neither trainer.max_epochs nor trainer.max_steps says how long the training is, which "
            "its learning rate follows: set one of them"
        )
