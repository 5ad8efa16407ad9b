"""What a command changes in its process, given back at its end: others may follow in it."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

LOGGERS = ("lightning.pytorch", "lightning.fabric")


@contextmanager
def trained_products() -> Iterator[None]:
    """Float32 products as trainings have them: with TF32 on a GPU, less on CPUs with AMX too."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Nothing but errors from Lightning's loggers, and no warnings."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
