"""What a downstream detector starts from: a recogniser, a detector, or random weights."""

import json
from pathlib import Path
from typing import Any

import timm
from torch import nn

from datamodules.files.errors import MissingInputError, UserError
from modules.networks.normalisation import Normalised
from modules.weights.classifier_folder import load_classifier, locate

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def checkpoint_of(weights: Path) -> Path:
    """The checkpoint of a run folder, or the file itself.

    Raises:
        MissingInputError: if there is none.
    """
    file = weights / "checkpoints" / "best.ckpt" if weights.is_dir() else weights
    if not file.is_file():
        raise MissingInputError(
            f"weights {file} do not exist: train a detector with `make downstream-detection`"
        )
    return file


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
        described = random | {"mean": list(MEAN), "std": list(STD)}
        if not timm.is_model(described["architecture"]):
            raise UserError(f"timm has no network '{described['architecture']}'")
    else:
        classifier = load_classifier(source)
        if not isinstance(classifier, Normalised):
            raise UserError(f"backbone {source} is no plain network of timm: export one of MPM")
        config = json.loads((locate(source)[0] / "config.json").read_text())
        return classifier.network, {
            "architecture": config["architecture"],
            "model_args": config.get("model_args", {}),
            "mean": classifier.normalise.mean.flatten().tolist(),
            "std": classifier.normalise.std.flatten().tolist(),
        }
    network = timm.create_model(
        described["architecture"], pretrained=False, **described["model_args"]
    )
    return network, described
