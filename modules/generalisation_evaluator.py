"""Evaluation of a trained classifier on sets of images, without an attack."""

from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from datamodules.files.errors import UserError
from modules.networks.class_groups import largest_logits
from modules.state_dicts.finite import FiniteLogits
from modules.weights.classifier_folder import image_format, load_classifier


class GeneralisationEvaluator(LightningModule):
    """Predicts classes, or groups of classes, of images; runs under `test`.

    Args:
        model: run folder with `export/`, timm folder, or checkpoint file.
        object_parts: bool `(num_objects, K + 1)`; its number of objects must be the number of
            classes of the model.

    Raises:
        MissingInputError: if there is no such model.
        UserError: if its weights are wrong or it has another number of classes.
    """

    def __init__(self, model: Path, object_parts: Tensor | None = None) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["object_parts"])
        self.weights = self.source = Path(model)
        self.network = load_classifier(self.weights).requires_grad_(False)
        self.images = image_format(self.network)
        self.model_name = str(self.weights)
        self.network.register_forward_hook(FiniteLogits(self.model_name))
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if object_parts is not None and self.network.num_classes != object_parts.shape[0]:
            raise UserError(
                f"model {model} has {self.network.num_classes} classes, the data has "
                f"{object_parts.shape[0]} object categories: give the data it was trained on; the "
                "folders of train/, where there is one (they may be empty), else of val/ are them"
            )
        self._counts: dict[str, tuple[int, int]] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, num_classes)` of images `(B, 3, H, W)` in [0, 1]."""
        return self.network(images)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Grades one chunk of a set.

        Args:
            batch: `image (B, 3, H, W) uint8`, `label (B,)`, `set`, `groups (num_classes,)` or
                None, and `aggregate`.
            batch_idx: position of the batch.

        Returns:
            On the CPU, for each image: `prediction` (a class, with groups a group), `correct`,
            and `confidence`, the probability of the prediction.
        """
        logits = self.network(batch["image"].float() / 255).float()
        probabilities, scores = logits.softmax(1), logits
        if batch["groups"] is not None:
            scores, probabilities = score_groups(logits, batch["groups"], batch["aggregate"])
        prediction = scores.argmax(1)
        correct = prediction == batch["label"]
        right, total = self._counts.get(batch["set"], (0, 0))
        right, total = right + int(correct.sum()), total + len(correct)
        self._counts[batch["set"]] = right, total
        self._show(right / total, len(correct))
        outcome = {
            "prediction": prediction,
            "correct": correct,
            "confidence": probabilities.gather(1, prediction[:, None])[:, 0],
        }
        return {name: value.cpu() for name, value in outcome.items()}

    def _show(self, accuracy: float, size: int) -> None:
        """Shows the accuracy of this process on this set so far; the records hold the result."""
        self.log(
            "accuracy",
            accuracy,
            prog_bar=True,
            logger=False,
            on_step=True,
            on_epoch=False,
            batch_size=size,
        )


def score_groups(
    logits: Tensor, groups: Tensor, aggregate: Literal["mask", "mean"]
) -> tuple[Tensor, Tensor]:
    """Scores groups of classes; classes of group -1 have no say in the choice.

    `mask` scores a group by the largest logit of its classes, so the answer is the group of the
    best class that is not masked out (PartImageNet++ §I, Tables S2 and S3). `mean` scores it by
    the mean over its classes of the soft-max over all classes (Geirhos et al. 2021).

    Args:
        logits: `(B, num_classes)`.
        groups: group of each class, int64 `(num_classes,)`; groups 0..G-1 all occur.
        aggregate: how a group is scored.

    Returns:
        Scores `(B, G)`, and probabilities `(B, G)` that sum to 1: with `mask` the groups' shares
        of the soft-max over the classes not masked out, with `mean` the scores rescaled.
    """
    kept = groups >= 0
    logits_kept, members = logits[:, kept], groups[kept]
    number = int(members.max()) + 1
    index = members.expand(len(logits), -1)
    empty = logits.new_zeros(len(logits), number)
    if aggregate == "mask":
        shares = empty.scatter_add(1, index, logits_kept.softmax(1))
        return largest_logits(logits, groups), shares
    means = empty.scatter_reduce(1, index, logits.softmax(1)[:, kept], "mean", include_self=False)
    return means, means / means.sum(1, keepdim=True)
