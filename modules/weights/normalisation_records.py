"""By which normalisation weights were trained: what files tell of it."""

import json
from pathlib import Path
from typing import Any

from torch import nn

from datamodules.files.errors import UserError
from modules.networks.normalisation import Normalise
from modules.networks.preprocessing import imagenet_normalisation
from modules.state_dicts.foreign_names import FoundWeights
from modules.state_dicts.weight_files import load_checkpoint

RECORD = "normalisation"  # entry of a checkpoint


def recorded_normalisation(path: Path, found: FoundWeights) -> Normalise | None:
    """The input normalisation of weights, from the first of these that tells it.

    A layer among the tensors; the record of our checkpoints; the configuration beside the file; for
    older checkpoints of ours and those of the authors of PartImageNet++ it was ImageNet's.

    Args:
        path: checkpoint or weight file.
        found: its tensors.

    Returns:
        None where nothing tells it: weights of the backbone alone.

    Raises:
        UserError: if a configuration beside the file is damaged.
    """
    if found.normalisation is not None:
        return Normalise(*found.normalisation, f"a layer in {path}")
    if path.suffix != ".safetensors" and (record := of_checkpoint(load_checkpoint(path), path)):
        return record
    if (beside := _beside(path)) is not None:
        return beside
    if found.origin != "plain":
        return imagenet_normalisation(f"ImageNet's, as {path} records none")
    return None


def require_normalisation(network: nn.Module, path: Path) -> None:
    """Refuses weights of images that were normalised otherwise than a network does it.

    Args:
        network: holds a `Normalise`.
        path: checkpoint or weight file that it was filled from.

    Raises:
        UserError: naming both.
    """
    its = recorded_normalisation(path, FoundWeights("plain"))
    mine = next(module for module in network.modules() if isinstance(module, Normalise))
    if its is not None and its.values != mine.values:
        raise UserError(
            f"{path} was trained on images normalised by mean and std {its.values} ({its.source}), "
            f"this network normalises by {mine.values} ({mine.source}): name the backbone with the "
            "tag of these weights, or give weights of that normalisation"
        )


def of_checkpoint(checkpoint: dict[str, Any], path: Path | str) -> Normalise | None:
    """The record of a checkpoint of ours; None without.

    Raises:
        UserError: if it is damaged.
    """
    record = checkpoint.get(RECORD)
    if record is None:
        return None
    try:
        return Normalise(record["mean"], record["std"], f"the record in {path}")
    except (TypeError, KeyError) as error:
        raise UserError(f"{path}: the entry {RECORD} is damaged ({error!r})") from None


def _beside(path: Path) -> Normalise | None:
    """The configuration that a weight file of ours or of timm comes with."""
    for folder in (path.parent, path.parent.parent / "export"):
        for file in (folder / "config.json", folder / "part_network.json"):
            try:
                content = json.loads(file.read_bytes())
            except FileNotFoundError:
                continue
            except ValueError as error:
                raise UserError(f"{file}, beside the weights, is damaged ({error})") from None
            config = content.get("pretrained_cfg", content)
            if "mean" in config and "std" in config:
                return Normalise(config["mean"], config["std"], str(file))
    return None
