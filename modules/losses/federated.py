"""Federated sigmoid loss of thousands of classes (Zhou, Koltun and Krähenbühl 2021)."""

import torch
from torch import Tensor
from torch.nn import functional as F

NUM_CLASSES = 50  # classes compared in a step, the value for LVIS
POWER = 0.5  # of the number of images a class is drawn with


def federated_loss(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,
    num_classes: int = NUM_CLASSES,
) -> Tensor:
    """Binary cross-entropy of the classes that occur and of some that are drawn.

    A class that no region of the batch shows is compared only when drawn, in proportion to the
    square root of its number of training images: images of an object say little about parts of
    a thousand others. As in the paper's code the background is one of the classes that occur,
    and is itself no class: a region of background is a negative for all.

    Args:
        logits: `(R, K + 1)` of R regions, any float type; column 0 is not used.
        labels: int64 `(R,)` in 0..K, 0 for background.
        class_counts: number of training images with each class, `(K + 1,)`.
        num_classes: number of classes compared, if not more occur.

    Returns:
        Sum over regions and compared classes, divided by R; float32. 0 without regions.
    """
    if not len(labels):
        return logits.float().sum() * 0
    classes = compared_classes(labels, class_counts, num_classes)
    target = (labels[:, None] == classes).float()
    loss = F.binary_cross_entropy_with_logits(logits[:, classes].float(), target, reduction="sum")
    return loss / len(labels)


def compared_classes(labels: Tensor, class_counts: Tensor, num_classes: int) -> Tensor:
    """The classes of `labels` without the background, and drawn ones, each once.

    Args:
        labels: int64 in 0..K.
        class_counts: `(K + 1,)`; a class with 0 is never drawn.
        num_classes: number of classes, the background included when it occurs; fewer are
            returned when no others can be drawn.
    """
    present = labels.unique()
    weights = class_counts.float() ** POWER
    weights[present] = 0
    weights[0] = 0
    drawn = min(num_classes - len(present), int((weights > 0).sum()))
    found = present[present > 0]
    if drawn <= 0:
        return found
    return torch.cat([found, torch.multinomial(weights, drawn)])
