"""Trained classifiers on disk: export as a timm folder, strict loading, fingerprint."""

import hashlib
import os
import pathlib
import pickle
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import save_for_hf
from torch import Tensor, nn

from modules.networks.normalisation import Normalised

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def export_timm(
    network: nn.Module,
    folder: Path,
    *,
    architecture: str,
    model_args: Mapping[str, Any],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    image_size: int,
) -> None:
    """Writes a plain timm network as a folder of `config.json` and `model.safetensors`.

    `timm.create_model("local-dir:FOLDER", pretrained=True)` gives the same logits. The weights
    go through a network built anew from the arguments, so a folder that is written can be read.
    An existing folder is replaced as a whole.

    Args:
        network: timm network without normalisation, on any device, in any memory format.
        folder: folder to write.
        architecture: timm name of the network.
        model_args: further JSON-able arguments of `timm.create_model`, such as `act_layer`.
        num_classes: number of logits.
        mean: mean of each channel, in [0, 1] pixel units.
        std: standard deviation of each channel, in [0, 1] pixel units.
        image_size: side of the square input, pixels.

    Raises:
        ValueError: if `network` is not what the arguments build.
    """
    plain = timm.create_model(
        architecture, pretrained=False, num_classes=num_classes, **dict(model_args)
    )
    # safetensors takes no channels-last tensors
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    load_strictly(plain, state, f"the network exported as {architecture}")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    preprocessing = {
        "mean": list(mean),
        "std": list(std),
        "input_size": [3, image_size, image_size],
        "interpolation": "bicubic",
    }
    save_for_hf(
        plain,
        str(partial),
        model_config={"pretrained_cfg": preprocessing},
        model_args=dict(model_args),
        safe_serialization=True,
    )
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def load_classifier(model: Path) -> Normalised:
    """Loads a classifier of pixels in [0, 1], in eval mode.

    Args:
        model: one of a run folder with `export/`, a timm folder (`config.json` and weights), or
            a checkpoint or weight file that has `config.json` beside it or, as in a run folder,
            in `../export/`. Of a training checkpoint only the tensors of the network itself are
            taken, not those of parts that exist for training alone.

    Raises:
        FileNotFoundError: if there is no such model.
        ValueError: if a file is damaged or its weights are not those of the network.
    """
    folder, weights = locate(model)
    try:
        network = timm.create_model(f"local-dir:{folder}", pretrained=False)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        message = f"{folder / 'config.json'} describes no timm network ({error})"
        raise ValueError(message) from error
    load_initial_weights(network, weights)
    config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    return Normalised(network, config["mean"], config["std"]).eval()


def locate(model: Path) -> tuple[Path, Path]:
    """Finds the folder with `config.json` and the weight file of a model.

    Args:
        model: as for `load_classifier`.

    Raises:
        FileNotFoundError: if one of them is missing; the message says what to do.
    """
    mend = "train one with `make stage3-mpm`, or set MODEL= to a run folder, timm folder or file"
    if not model.exists():
        raise FileNotFoundError(f"model {model} does not exist: {mend}")
    places = [model.parent, model.parent.parent / "export"]
    if model.is_dir():
        places = [model / "export", model]
    folder = next((place for place in places if (place / "config.json").is_file()), None)
    if folder is None:
        looked = " or ".join(str(place / "config.json") for place in places)
        raise FileNotFoundError(f"model {model} has no {looked}: {mend}")
    files = [folder / name for name in WEIGHT_FILES] if model.is_dir() else [model]
    weights = next((file for file in files if file.is_file()), None)
    if weights is None:
        raise FileNotFoundError(f"{folder} has none of {', '.join(WEIGHT_FILES)}: {mend}")
    return folder, weights


def fingerprint(model: Path) -> str:
    """SHA-256, in hexadecimal, over the weight file and the `config.json` of a model."""
    folder, weights = locate(model)
    content = (folder / "config.json").read_bytes() + weights.read_bytes()
    return hashlib.sha256(content).hexdigest()


def load_initial_weights(network: nn.Module, weights: Path) -> None:
    """Fills a timm network with weights of the same network, trained before.

    Args:
        network: network without normalisation.
        weights: run folder with `export/`, timm folder, checkpoint or weight file.

    Raises:
        FileNotFoundError: if there are no such weights.
        ValueError: if they are damaged or not those of the network.
    """
    path = locate(weights)[1] if weights.is_dir() else weights
    load_strictly(network, _of_network(network, read_state(path)), str(path))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a torch or Lightning checkpoint file onto the CPU, tensors and plain values only.

    With `EMAWeightAveraging` the `state_dict` of a Lightning checkpoint is the average.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged.
    """
    try:
        # hyper-parameters in a checkpoint may hold paths
        with torch.serialization.safe_globals([pathlib.PosixPath, pathlib.WindowsPath]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"weights {path} do not exist: train or export them") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise _unreadable(path, error) from None


def read_state(path: Path) -> dict[str, Tensor]:
    """Reads the state dict of a `.safetensors`, torch or Lightning checkpoint file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or holds no state dict.
    """
    if path.suffix == ".safetensors" and path.is_file():
        try:
            return load_file(path)
        except SafetensorError as error:
            raise _unreadable(path, error) from None
    content = load_checkpoint(path)
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict: give a checkpoint or a weight file")
    return state


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Loads a state dict that must fit exactly.

    Args:
        network: network to fill.
        state: its tensors by name.
        source: what the tensors come from, for the message.

    Raises:
        ValueError: listing missing, leftover and wrongly shaped tensors.
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
    found = [f"{what}: {_shortened(names)}" for what, names in problems.items() if names]
    if found:
        raise ValueError(f"{source} does not fit {type(network).__name__}; {'; '.join(found)}")
    network.load_state_dict(state)


def _of_network(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors below the prefix under which a checkpoint holds most of the network."""
    names = network.state_dict().keys()
    first = next(iter(names))
    prefixes = {key.removesuffix(first) for key in state if f".{key}".endswith(f".{first}")}
    if not prefixes:
        return state
    prefix = max(sorted(prefixes), key=lambda p: sum(p + name in state for name in names))
    return {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }


def _shortened(names: Sequence[str], limit: int = 8) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" * (len(names) > limit))


def _unreadable(path: Path, error: Exception) -> ValueError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ValueError(f"{path} holds no readable weights ({reason}): export it anew")
