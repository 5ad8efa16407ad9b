"""Part maps that a model's bypass gives the example images of its evaluation."""

from pathlib import Path

import numpy as np
import torch

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.errors import MissingInputError, UserError
from modules.weights.classifier_sources import open_classifier, with_parts


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
    classifier, _, _ = open_classifier(model)
    network = with_parts(model, classifier)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        levels = network.forward_with_parts(pixels)[1]
        if not levels:
            raise UserError(f"{model} has no part maps")
        return levels[0].logits().argmax(1).numpy()


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
