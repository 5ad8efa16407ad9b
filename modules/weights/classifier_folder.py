"""Trained classifiers on disk: where they lie, strict loading, fingerprint."""

import hashlib
import json
from pathlib import Path
from typing import Any

import timm
from torch import nn

from datamodules.files.errors import MissingInputError, UserError
from modules.networks.normalisation import Normalise, Normalised
from modules.networks.preprocessing import CROP, INTERPOLATION, ImageFormat, preprocessing_of
from modules.state_dicts.foreign_names import find_weights
from modules.state_dicts.run_checkpoints import CHECKPOINTS
from modules.state_dicts.weight_files import load_strictly, read_state
from modules.weights.named_models import named_model
from modules.weights.part_network_folder import (
    DESCRIPTION,
    DeployedPartNetwork,
    load_part_network,
)

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
DESCRIPTIONS = ("config.json", DESCRIPTION)
EXPORT = "export"  # folder of a run that holds what is deployed
TARGET = "make stage3-mpm"


def load_classifier(model: Path) -> Normalised | DeployedPartNetwork:
    """Loads a classifier of pixels in [0, 1], in eval mode.

    Args:
        model: one of a run folder with `export/`, a timm folder (`config.json` and weights), a
            folder of a part network (`part_network.json` and weights), a checkpoint or weight
            file that has such a description beside it or, as in a run folder, in `../export/`, or
            a word, see `named_model`.
            Of the checkpoint of a plain network only the tensors of the network itself are
            taken, not those of a bypass that exists for training alone.

    Raises:
        MissingInputError: if there is no such model.
        UserError: if a file is damaged or its weights are not those of the network.
    """
    folder, weights = locate(model)
    if not (folder / "config.json").is_file():
        return load_part_network(folder, read_state(weights), str(weights))
    try:
        network = timm.create_model(f"local-dir:{folder}", pretrained=False)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        message = f"{folder / 'config.json'} describes no timm network ({error})"
        raise UserError(message) from error
    found = find_weights(read_state(weights), network, str(weights))
    others = {n: v for n, v in found.parts.items() if not n.startswith("bypass.")}
    load_strictly(network, found.backbone | others, str(weights))
    normalise = _normalisation(found.normalisation, weights, folder)
    return Normalised(network, *normalise.values, normalise.source).eval()


def image_format(classifier: nn.Module) -> ImageFormat | None:
    """What the description of a classifier says of its images; None where nothing is known."""
    about: Any
    if isinstance(classifier, DeployedPartNetwork):
        about = classifier.description
        size = about["image_size"]
    else:
        about = getattr(getattr(classifier, "network", None), "pretrained_cfg", None) or {}
        if "input_size" not in about:
            return None
        size = about["input_size"][1]
    crop = about.get("crop_pct", CROP)
    return ImageFormat(int(size), float(crop), str(about.get("interpolation", INTERPOLATION)))


def architecture_of(classifier: nn.Module) -> str:
    """Name of a classifier's architecture, timm's with the structure of its parts if it has any.

    Empty for networks that no folder describes.
    """
    if isinstance(classifier, DeployedPartNetwork):
        return "{structure} on {architecture}".format(**classifier.description)
    if not isinstance(classifier, Normalised):
        return ""
    config: Any = getattr(classifier.network, "pretrained_cfg", None) or {}
    return str(config.get("architecture", ""))


def _normalisation(
    inside: tuple[list[float], list[float]] | None,
    weights: Path,
    folder: Path,
) -> Normalise:
    """The weights' own, or the folder's, or that of timm's configuration."""
    if inside is not None:
        return Normalise(*inside, f"a layer in {weights}")
    content = json.loads((folder / "config.json").read_text())
    config = content.get("pretrained_cfg", content)  # timm fills in what the file does not say
    if "mean" in config and "std" in config:
        return Normalise(config["mean"], config["std"], str(folder / "config.json"))
    known = preprocessing_of(timm.create_model(content["architecture"]))
    return Normalise(known.mean, known.std, f"{known.source}, as {folder} says none")


def locate(model: Path) -> tuple[Path, Path]:
    """Finds the folder with the description and the weight file of a model.

    Args:
        model: as for `load_classifier`.

    Raises:
        MissingInputError: if one of them is missing; the message says what to do.
    """
    model = named_model(model)
    remedy = f"train one with `{TARGET}`, or set MODEL= to a run folder, timm folder or file"
    if not model.exists():
        raise MissingInputError(f"model {model} does not exist: {remedy}")
    places = [model.parent, model.parent.parent / EXPORT]
    if model.is_dir():
        places = [model / EXPORT, model]
    described = [place for place in places if any((place / n).is_file() for n in DESCRIPTIONS)]
    if not described and (model / CHECKPOINTS).is_dir():
        raise MissingInputError(
            f"model {model} is a run that has no {EXPORT}/: a recogniser's run writes it at its "
            f"end (go on with {TARGET} until it is complete), other runs write none"
        )
    if not described:
        looked = " or ".join(str(place / DESCRIPTIONS[0]) for place in places)
        raise MissingInputError(f"model {model} has no {looked}: {remedy}")
    folder = described[0]
    files = [folder / name for name in WEIGHT_FILES] if model.is_dir() else [model]
    weights = next((file for file in files if file.is_file()), None)
    if weights is None:
        raise MissingInputError(f"{folder} has none of {', '.join(WEIGHT_FILES)}: {remedy}")
    return folder, weights


def weight_file(weights: Path) -> Path:
    """The weight file of a folder or word, see `locate`; a file as it is, whether there or not."""
    weights = named_model(weights)
    return locate(weights)[1] if weights.is_dir() else weights


def fingerprint(model: Path) -> str:
    """SHA-256, in hexadecimal, over the weight file and the description of a model."""
    folder, weights = locate(model)
    description = next(folder / name for name in DESCRIPTIONS if (folder / name).is_file())
    return hashlib.sha256(description.read_bytes() + weights.read_bytes()).hexdigest()
