"""Evaluation of a trained classifier under threat models."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from modules.attacks.threats import Threat
from modules.weights import load_classifier


class RobustnessEvaluator(LightningModule):
    """Attacks fixed chunks of images; runs under `test` with `inference_mode: false`.

    A batch is one unit of work: a chunk of images and the name of the threat it stands under.

    Args:
        model: run folder with `export/`, timm folder, or checkpoint file.
        threats: threat models by name.
        object_parts: bool `(num_objects, K + 1)`; its number of objects must be the number of
            classes of the model.

    Raises:
        FileNotFoundError: if there is no such model.
        ValueError: if its weights are wrong or it has another number of classes.
    """

    def __init__(
        self, model: Path, threats: dict[str, Threat], object_parts: Tensor | None = None
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["object_parts", "threats"])
        self.weights = Path(model)
        self.threats = threats
        self.network = load_classifier(self.weights).requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if object_parts is not None and self.network.num_classes != object_parts.shape[0]:
            raise ValueError(
                f"model {model} has {self.network.num_classes} classes, the data has "
                f"{object_parts.shape[0]} object categories: give the data it was trained on"
            )
        self._counts: dict[str, tuple[int, int]] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, num_classes)` of images `(B, 3, H, W)` in [0, 1]."""
        return self.network(images)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Attacks one unit.

        Args:
            batch: `image (B, 3, H, W) uint8`, `label (B,)`, `threat` and `attack_seed`.
            batch_idx: position of the batch.

        Returns:
            On the CPU, for each image: `clean_prediction`, `adversarial_prediction`, `robust`
            (right both before and under attack), the distances `linf` and `l2` of the
            adversarial image in [0, 1] pixel units, and `adversarial (B, 3, H, W)` in [0, 1].
        """
        images = batch["image"].float() / 255
        labels = batch["label"]
        threat = self.threats[batch["threat"]]
        adversarial = threat(self.network, images, labels, batch["attack_seed"])
        with torch.no_grad():
            clean_prediction = self.network(images).argmax(1)
            adversarial_prediction = self.network(adversarial).argmax(1)
        robust = (clean_prediction == labels) & (adversarial_prediction == labels)
        self._show(batch["threat"], robust)
        distance = (adversarial - images).flatten(1)
        outcome = {
            "clean_prediction": clean_prediction,
            "adversarial_prediction": adversarial_prediction,
            "robust": robust,
            "linf": torch.linalg.vector_norm(distance, torch.inf, dim=1),
            "l2": torch.linalg.vector_norm(distance, 2, dim=1),
            "adversarial": adversarial,
        }
        return {name: value.cpu() for name, value in outcome.items()}

    def _show(self, name: str, robust: Tensor) -> None:
        """Shows the accuracy of this process so far; the records hold the result."""
        right, total = self._counts.get(name, (0, 0))
        right, total = right + int(robust.sum()), total + len(robust)
        self._counts[name] = right, total
        self.log(name, right / total, on_step=True, on_epoch=False, prog_bar=True, logger=False)
