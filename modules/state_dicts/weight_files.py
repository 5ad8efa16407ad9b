"""Weight files: reading state dicts safely, loading them strictly."""

import argparse
import pathlib
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from datamodules.files.errors import MissingInputError, UserError
from modules.state_dicts.finite import require_finite
from modules.state_dicts.prefixes import AVERAGES, refuse_foreign_names, undo_prefixes

# Keys under which training codes keep their state dict: averaged weights first, last the live ones
# beside Lightning's averages, which are its `state_dict`.
WRAPPINGS = (
    (*AVERAGES, "state_dict_ema", "ema_state_dict", "swa_state_dict", "params_ema"),
    (
        "state_dict",
        "model_state_dict",
        "model_state",
        "model",
        "module",
        "net",
        "network",
        "params",
    ),
    ("current_model_state",),
)

_NUMPY_SCALAR = np.float64(0).__reduce__()[0]  # type: ignore[misc]

# Plain values that checkpoints hold beside the weights: paths, command lines, best accuracies.
_PLAIN_CLASSES: list[Any] = [
    pathlib.PosixPath,
    pathlib.WindowsPath,
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u8", "?")),
    # under the names of NumPy 2 and 1
    (_NUMPY_SCALAR, "numpy._core.multiarray.scalar"),
    (_NUMPY_SCALAR, "numpy.core.multiarray.scalar"),
]


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a torch or Lightning checkpoint file onto the CPU, tensors and plain values only.

    With `EMAWeightAveraging` the `state_dict` of a Lightning checkpoint is the average.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if the file is damaged or needs code of its author to be read.
    """
    try:
        with torch.serialization.safe_globals(_PLAIN_CLASSES):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise MissingInputError(f"weights {path} do not exist: train or export them") from None
    except pickle.UnpicklingError as error:
        foreign = re.search(
            r"(?:Unsupported (?:global|class)[^.]*?|GLOBAL) ([\w.]+\.\w+)", str(error)
        )
        if foreign is None:
            raise _unreadable(path, error) from None
        raise UserError(
            f"{path} holds {foreign[1]}, an object that only code of its author could read: where "
            "you trust it, save its state dict alone in a file of its own"
        ) from None
    except (RuntimeError, EOFError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise _unreadable(path, error) from None


def read_state(path: Path) -> dict[str, Tensor]:
    """Reads the state dict of a `.safetensors`, torch or Lightning checkpoint file.

    The usual wrappings are undone; of several state dicts the averaged one is taken.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if the file is damaged or holds no state dict.
    """
    if path.suffix == ".safetensors" and path.is_file():
        try:
            return load_file(path)
        except SafetensorError as error:
            raise _unreadable(path, error) from None
    return state_of(load_checkpoint(path), str(path))


def state_of(content: Any, source: str) -> dict[str, Tensor]:
    """The state dict in the content of a checkpoint, see `read_state`.

    Args:
        content: what a checkpoint file holds.
        source: the file, for messages.

    Raises:
        UserError: if it holds no state dict, or two of equal rank that differ.
    """
    state = _state_dict(content, source)
    if state is None:
        raise UserError(f"{source} holds no state dict: give a checkpoint or a weight file")
    return state


def load_named(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Loads a state dict that must fit exactly once `undo_prefixes` has undone its prefixes.

    Args:
        network: network to fill.
        state: its tensors by name.
        source: what the tensors come from, for the message.

    Raises:
        UserError: as `load_strictly`, and where the file names its tensors otherwise.
    """
    names = list(network.state_dict())
    undone = undo_prefixes(state, names, source)
    refuse_foreign_names(undone, names, source, type(network).__name__)
    load_strictly(network, undone.tensors, source)


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Loads a state dict that must fit exactly.

    Args:
        network: network to fill.
        state: its tensors by name.
        source: what the tensors come from, for the message.

    Raises:
        UserError: listing missing, leftover and wrongly shaped tensors, or those whose values are
            not finite.
    """
    wanted = network.state_dict()
    problems = {
        "missing": sorted(wanted.keys() - state.keys()),
        "leftover": sorted(state.keys() - wanted.keys()),
        "wrong shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in wanted
            if name in state and state[name].shape != wanted[name].shape
        ],
    }
    found = [f"{what}: {shortened(names)}" for what, names in problems.items() if names]
    if found:
        raise UserError(f"{source} does not fit {type(network).__name__}; {'; '.join(found)}")
    require_finite(state, source)
    network.load_state_dict(state)


def shortened(names: Sequence[str], limit: int = 8) -> str:
    """The first names of a list and how many more there are."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" * (len(names) > limit))


def _state_dict(content: Any, source: str) -> dict[str, Tensor] | None:
    if not isinstance(content, Mapping) or not content:
        return None
    if all(isinstance(value, Tensor) for value in content.values()):
        return {str(name): value for name, value in content.items()}
    for keys in WRAPPINGS:
        inner = {key: _state_dict(content.get(key), source) for key in keys}
        found = [(key, state) for key, state in inner.items() if state is not None]
        for key, state in found[1:]:
            if not _equal(found[0][1], state):
                raise UserError(
                    f"{source} holds two state dicts that differ, {found[0][0]} and {key}: save "
                    "the one that is meant in a file of its own"
                )
        if found:
            return found[0][1]
    return None


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        value.shape == other[name].shape and torch.equal(value, other[name])
        for name, value in one.items()
    )


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"{path} holds no readable weights ({reason}): export it anew")
