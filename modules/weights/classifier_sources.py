"""Classifiers to be measured: folders and files, any class by its path, or a module."""

import hashlib
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datamodules.files.errors import UserError
from modules.networks.normalisation import Normalised
from modules.networks.part_network import BypassNetwork, PartNetwork
from modules.networks.structures import NetworkSettings
from modules.state_dicts.prefixes import undo_prefixes
from modules.state_dicts.run_checkpoints import CHECKPOINTS, best_checkpoint
from modules.state_dicts.weight_files import load_checkpoint, load_named, read_state, state_of
from modules.weights.classifier_folder import TARGET, fingerprint, load_classifier
from modules.weights.part_network_folder import DeployedPartNetwork, find_normalisation

# A path as for `load_classifier`; or `class_path`, `init_args`, `weights`, `mean`, `std`; or a
# module that takes pixels in [0, 1].
ClassifierSource = Path | dict[str, Any] | nn.Module
KEYS = ("class_path", "init_args", "weights", "mean", "std")
HEAD = "bypass.heads.0.pointwise.weight"  # a network that was trained with parts has it


def open_classifier(source: ClassifierSource) -> tuple[nn.Module, str, str]:
    """A classifier of pixels in [0, 1] in eval mode, its fingerprint and a name for reports.

    Args:
        source: a path as for `load_classifier`; a module; or a dict of `class_path` (any
            importable class or function that gives a module), its `init_args`, the file of its
            `weights` (loaded strictly; the usual wrappings and prefixes are undone) and,
            where it wants normalised images, their `mean` and `std` in [0, 1] pixel units.

    Returns:
        The network, a SHA-256 in hexadecimal of its weights and description, and its name.

    Raises:
        MissingInputError: if there is no such model.
        UserError: if it cannot be built or its weights do not fit.
    """
    if isinstance(source, nn.Module):
        digest = hashlib.sha256(type(source).__qualname__.encode())
        for name, value in source.state_dict().items():
            digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
        return source.eval(), digest.hexdigest(), type(source).__name__
    if isinstance(source, Mapping):
        return _by_class(dict(source))
    path = Path(source)
    return load_classifier(path), fingerprint(path), str(path)


def with_parts(source: ClassifierSource, classifier: nn.Module) -> PartNetwork:
    """The network with its part branch, whose `forward` is that of the classifier.

    MPM's bypass is not deployed, so it comes from the run's checkpoint.

    Args:
        source: what `open_classifier` was given.
        classifier: what it gave back.

    Raises:
        MissingInputError: if the run has no best checkpoint.
        UserError: if the model has no parts; the message says why.
    """
    if isinstance(classifier, PartNetwork):
        return classifier
    if isinstance(classifier, DeployedPartNetwork):
        return classifier.network
    if not isinstance(source, str | Path):
        raise UserError("a model given by its class has no part branch that is known")
    path = Path(source)
    file = path
    if (path / CHECKPOINTS).is_dir():
        file = best_checkpoint(path, TARGET)
    if not file.is_file() or file.suffix != ".ckpt" or not isinstance(classifier, Normalised):
        raise UserError(f"{source} keeps no bypass: give the run folder of a training with parts")
    checkpoint = load_checkpoint(file)
    state = state_of(checkpoint, str(file))
    head = undo_prefixes(state, [HEAD], str(file)).known.get(HEAD)
    if head is None:
        raise UserError(f"{file} was trained without part supervision")
    mask_classes = torch.ones(classifier.num_classes, head.shape[0], dtype=torch.bool)
    try:
        settings = NetworkSettings(**checkpoint["hyper_parameters"]["network"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{file} does not say what its network is made of ({error})") from None
    network = settings.build(mask_classes)
    load_named(network, state, str(file))
    find_normalisation(network).take(find_normalisation(classifier))
    deployed = classifier.network.state_dict()
    if not isinstance(network, BypassNetwork) or any(
        not value.equal(deployed[name])
        for name, value in network.recogniser.network.state_dict().items()
    ):
        raise UserError(f"{file} holds other weights than the export beside it: export it anew")
    return network.eval()


def _by_class(source: dict[str, Any]) -> tuple[nn.Module, str, str]:
    unknown = [name for name in source if name not in KEYS]
    class_path = str(source.get("class_path"))
    if unknown or "class_path" not in source:
        raise UserError(f"a model by its class has {', '.join(KEYS)}, not {', '.join(source)}")
    if ("mean" in source) != ("std" in source):
        raise UserError(f"{class_path}: give both mean and std, or none if it normalises")
    module, _, name = class_path.rpartition(".")
    try:
        made = getattr(importlib.import_module(module), name)(**source.get("init_args") or {})
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"no network can be made of {class_path} ({error})") from None
    if not isinstance(made, nn.Module):
        raise UserError(f"{class_path} makes a {type(made).__name__}, not a torch.nn.Module")
    digest = hashlib.sha256()
    if source.get("weights") is not None:
        file = Path(source["weights"])
        load_named(made, read_state(file), str(file))
        digest.update(file.read_bytes())
    description = {name: value for name, value in source.items() if name != "weights"}
    digest.update(json.dumps(description, sort_keys=True, default=str).encode())
    if "mean" in source:
        made = Normalised(made, source["mean"], source["std"])
    return made.eval(), digest.hexdigest(), class_path
