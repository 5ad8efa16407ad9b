"""What a downstream detector starts from: a recogniser, a detector, or random weights."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from datamodules.files.errors import MissingInputError, UserError
from modules.networks.normalisation import Normalised
from modules.networks.preprocessing import input_normalisation
from modules.networks.timm_networks import timm_network
from modules.state_dicts.run_checkpoints import best_checkpoint
from modules.weights.classifier_folder import load_classifier, locate


def checkpoint_of(weights: Path) -> Path:
    """The checkpoint of a run folder, or the file itself.

    Raises:
        MissingInputError: if there is none.
    """
    if weights.is_dir():
        return best_checkpoint(weights, "make downstream-detection")
    if not weights.is_file():
        raise MissingInputError(
            f"weights {weights} do not exist: train a detector with `make downstream-detection`"
        )
    return weights


def open_backbone(
    source: Path | None, checkpoint: dict[str, Any] | None, random: dict[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """The classifier to start from, and what it can be built from again.

    Args:
        source: run folder of stage 3, timm folder or checkpoint file, see `load_classifier`.
        checkpoint: a checkpoint of a detector, which describes its classifier, used instead.
        random: `architecture` and `model_args` of a classifier of random weights, if both are None.

    Returns:
        A classifier of timm, and its `architecture`, `model_args`, and the `mean` and `std` of its
        input in [0, 1] pixel units.

    Raises:
        MissingInputError: if there is no such model.
        UserError: if it is no plain network of timm.
    """
    if checkpoint is not None:
        described = checkpoint["description"]
    elif source is None:
        described = random
    else:
        classifier = load_classifier(source)
        if not isinstance(classifier, Normalised):
            raise UserError(f"backbone {source} is no plain network of timm: export one of MPM")
        config = json.loads((locate(source)[0] / "config.json").read_text())
        rank_zero_info(str(classifier.normalise))
        mean, std = classifier.normalise.values
        return classifier.network, {
            "architecture": config["architecture"],
            "model_args": config.get("model_args", {}),
            "mean": mean,
            "std": std,
        }
    network = timm_network(described["architecture"], described["model_args"])
    if checkpoint is None:
        normalise = input_normalisation(network)
        rank_zero_info(str(normalise))
        described = described | dict(zip(("mean", "std"), normalise.values, strict=True))
    return network, described
