"""Part maps that a model's bypass gives images, as they are and under attack."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.errors import MissingInputError, UserError
from modules.attacks.pixel_units import PixelDistance
from modules.attacks.threats import PGD
from modules.networks.part_network import PartNetwork
from modules.weights.classifier_sources import open_classifier, with_parts

STEPS = 20  # of the attack, a quarter of the radius each


class AttackedParts(NamedTuple):
    """Answers to images as they are and under attack.

    Attributes:
        clean: Part ids, int64 (N, h, w), 0 = background.
        attacked: Likewise, under attack.
        clean_class: Predicted classes, int64 (N,).
        attacked_class: Likewise, under attack.
    """

    clean: np.ndarray
    attacked: np.ndarray
    clean_class: np.ndarray
    attacked_class: np.ndarray


def predict_parts(model: Path, images: np.ndarray) -> np.ndarray:
    """Part ids at the finest supervised level, on the CPU.

    Args:
        model: What was evaluated: a run folder whose checkpoint keeps the part branch.
        images: uint8 (N, H, W, 3).

    Returns:
        int64 (N, h, w), 0 = background.

    Raises:
        MissingInputError: If there is no such model.
        UserError: If it has no part branch.
    """
    network = _open(model)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return _answers(network, pixels, model)[0]


def attack_parts(model: Path, images: Tensor, labels: Tensor, eps: float) -> AttackedParts:
    """Answers before and after PGD on the class, on the CPU.

    Args:
        model: As for `predict_parts`.
        images: uint8 (N, 3, H, W) of the size that the model is evaluated at.
        labels: True classes (N,).
        eps: l_inf radius in [0, 1] pixel units.

    Raises:
        MissingInputError: If there is no such model.
        UserError: If it has no part branch, too few classes or no gradient.
    """
    network = _open(model)
    pixels = images.float() / 255
    with torch.inference_mode():
        classes = network(pixels[:1]).shape[1]
    if labels.max() >= classes:
        raise UserError(f"{model} has {classes} classes, the images are of {labels.max() + 1}")
    attacked = PGD(PixelDistance(eps), STEPS, PixelDistance(eps / 4))(
        network, pixels, labels, seed=0
    )
    (clean, before), (under, after) = (_answers(network, x, model) for x in (pixels, attacked))
    return AttackedParts(clean, under, before, after)


def _open(model: Path) -> PartNetwork:
    classifier, _, _ = open_classifier(model)
    return with_parts(model, classifier)


def _answers(network: PartNetwork, pixels: Tensor, model: Path) -> tuple[np.ndarray, np.ndarray]:
    """Part ids (N, h, w) and classes (N,)."""
    with torch.inference_mode():
        logits, levels = network.forward_with_parts(pixels)
        if not levels:
            raise UserError(f"{model} has no part maps")
        return levels[0].logits().argmax(1).numpy(), logits.argmax(1).numpy()


def find_model(told: str, runs: Path, name: str) -> Path:
    """The evaluated model: as the run was told, else the run folder of its name.

    Raises:
        MissingInputError: If neither exists.
    """
    for path in (Path(told), runs / name):
        if path.exists():
            return path
    raise MissingInputError(f"model {told} is not here")


def find_vocabulary(folder: Path, model: Path) -> PartVocabulary:
    """The vocabulary that lies with the evaluation or with its model.

    Raises:
        MissingInputError: If neither has one.
    """
    for path in (folder / "vocabulary.json", model / "vocabulary.json"):
        if path.is_file():
            return PartVocabulary.load(path)
    raise MissingInputError(f"{folder} holds no vocabulary.json")
