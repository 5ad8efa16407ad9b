"""What a checkpoint keeps of its module's settings: plain values, readable without code."""

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from lightning.pytorch import LightningModule


def make_plain(module: LightningModule) -> None:
    """Makes the values that `save_hyperparameters` kept plain: dataclasses dicts, all floats float.

    Checkpoints are read with `weights_only=True`, which takes no classes of the project.
    """
    for name, value in module.hparams.items():
        module.hparams[name] = _plain(value)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(one) for one in value)
    return float(value) if isinstance(value, float) else value
