"""Objectives of adversarial training: what it minimises, and what its attack maximises."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Classifier = Callable[[Tensor], Tensor]


class AdversarialCrossEntropy:
    """Cross-entropy of the adversarial images (Madry et al. 2018).

    Args:
        label_smoothing: of the classes, in [0, 1).
    """

    def __init__(self, label_smoothing: float) -> None:
        self.label_smoothing = label_smoothing

    def cross_entropies(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Smoothed cross-entropy of each image, `(B,)`."""
        return F.cross_entropy(
            logits, labels, label_smoothing=self.label_smoothing, reduction="none"
        )

    def attack_loss(self, network: Classifier, images: Tensor, labels: Tensor) -> Classifier:
        """What the attack maximises: `(B,)` of adversarial images, one value an image.

        Args:
            network: gives class logits that gradients pass; in the mode of the attack.
            images: clean images `(B, 3, H, W)`.
            labels: true classes `(B,)`.
        """
        return lambda points: self.cross_entropies(network(points), labels)

    def loss(self, network: Classifier, images: Tensor, labels: Tensor, logits: Tensor) -> Tensor:
        """What the training minimises, a scalar.

        Args:
            network: as in `attack_loss`; in the mode of the training.
            images: clean images `(B, 3, H, W)`.
            labels: true classes `(B,)`.
            logits: of the adversarial images.
        """
        return self.cross_entropies(logits, labels).mean()


class Trades(AdversarialCrossEntropy):
    """Cross-entropy of clean images plus a divergence of predictions (Zhang et al. 2019).

    The divergence is that of the adversarial predictions from the clean ones; the attack maximises
    it alone.

    Args:
        label_smoothing: of the classes, in [0, 1).
        weight: beta, the weight of the divergence.
    """

    def __init__(self, label_smoothing: float, weight: float) -> None:
        super().__init__(label_smoothing)
        self.weight = weight

    def attack_loss(self, network: Classifier, images: Tensor, labels: Tensor) -> Classifier:
        """The divergence of each image, `(B,)`."""
        with torch.no_grad():
            target = network(images).softmax(1)
        return lambda points: F.kl_div(
            network(points).log_softmax(1), target, reduction="none"
        ).sum(1)

    def loss(self, network: Classifier, images: Tensor, labels: Tensor, logits: Tensor) -> Tensor:
        """Loss on clean images plus the divergence, a scalar."""
        clean = network(images)
        divergence = F.kl_div(logits.log_softmax(1), clean.softmax(1), reduction="batchmean")
        return self.cross_entropies(clean, labels).mean() + self.weight * divergence
