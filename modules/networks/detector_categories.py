"""What the segmenter detects, parts, whole objects or both, and how its classes are numbered."""

from typing import Literal

import torch
from torch import Tensor, nn

from datamodules.files.errors import UserError

WholeObjects = Literal["beside_parts", "alone"]
Instances = dict[str, Tensor]


class DetectorCategories(nn.Module):
    """The classes of the segmenter: 0 is the background, parts come first, objects behind them.

    Parts keep their ids of the vocabulary, 1..K, so that labels and later stages know nothing of
    objects. The object of class label c is class `K + 1 + c`, or `1 + c` where no parts are
    detected. A whole object is the union of the parts that an image shows: annotations in the
    layout of PartImageNet++ have no other mask of it.

    Args:
        object_parts: bool `(num_objects, K + 1)`, which parts occur on which object; column 0 is
            the background.
        whole_objects: whether objects are classes `beside_parts` or `alone`; None detects parts
            alone.

    Attributes:
        finds_parts: whether parts are classes.
        finds_objects: whether objects are.
        num_classes: with the background.
        allowed: bool `(num_objects, num_classes)`, what the category filter leaves of an object.

    Raises:
        UserError: if `object_parts` is missing or not such a matrix, or `whole_objects` is unknown.
    """

    allowed: Tensor
    allowed_parts: Tensor

    def __init__(self, object_parts: Tensor | None, whole_objects: WholeObjects | None) -> None:
        super().__init__()
        parts = _checked(object_parts)
        if whole_objects not in (None, "beside_parts", "alone"):
            raise UserError(
                f"whole_objects {whole_objects} is unknown: give beside_parts, alone or null"
            )
        self.finds_parts = whole_objects != "alone"
        self.finds_objects = whole_objects is not None
        parts = parts if self.finds_parts else parts[:, :1]
        self._first_object = parts.shape[1]
        objects = torch.eye(len(parts), dtype=torch.bool, device=parts.device)
        if not self.finds_objects:
            objects = objects[:, :0]
        self.register_buffer("allowed", torch.cat([parts, objects], 1), persistent=False)
        none = torch.zeros_like(objects)
        self.register_buffer("allowed_parts", torch.cat([parts, none], 1), persistent=False)

    @property
    def num_classes(self) -> int:
        """Number of classes, with the background."""
        return self.allowed.shape[1]

    def part_filter(self, labels: Tensor | None, count: int) -> Tensor | None:
        """The filter that lets no object through, and only parts of the images' objects.

        Args:
            labels: object categories `(count,)`; None lets all parts through.
            count: number of images.

        Returns:
            bool `(count, num_classes)`; None where nothing is filtered.

        Raises:
            UserError: if no parts are detected.
        """
        if not self.finds_parts:
            raise UserError(
                "this segmenter was trained with whole_objects=alone, so it finds no parts: train "
                "one with parts (make stage1-segmenter, without the configuration objects)"
            )
        if labels is not None:
            return self.allowed_parts[labels]
        if not self.finds_objects:
            return None
        return self.allowed_parts.any(dim=0).expand(count, -1)

    def targets(self, parts: Instances, label: Tensor) -> Instances:
        """What the detector is to learn of an image.

        Args:
            parts: `boxes (N, 4)`, tight, as x1, y1, x2, y2 in pixels, `labels (N,)` in 1..K,
                `masks (N, H, W)` in {0, 1}; N may be 0.
            label: the image's object category, of one element.

        Returns:
            The same with this detector's classes. Whether parts or objects come first is drawn:
            a region learns its best box, the first one of equal boxes, so an object of one part
            would otherwise never be learnt.

        Raises:
            UserError: if objects are no classes.
        """
        if not self.finds_objects:
            raise UserError("without whole_objects the parts themselves are the targets")
        whole = united(parts, label)
        whole["labels"] = whole["labels"] + self._first_object
        if not self.finds_parts:
            return whole
        pair = (parts, whole) if torch.rand(()) < 0.5 else (whole, parts)
        return {name: torch.cat([one[name] for one in pair]) for name in whole}

    def split(self, found: Instances) -> tuple[Instances, Instances]:
        """Detected parts, labels in 1..K, and detected objects, labels in 0..num_objects - 1."""
        if not self.finds_objects:
            return found, {name: values[:0] for name, values in found.items()}
        is_object = found["labels"] >= self._first_object
        parts = {name: values[~is_object] for name, values in found.items()}
        objects = {name: values[is_object] for name, values in found.items()}
        objects["labels"] = objects["labels"] - self._first_object
        return parts, objects

    def class_counts(self, parts: Tensor, objects: Tensor | None) -> Tensor:
        """Number of training images with each class `(num_classes,)`, 0 for the background.

        Args:
            parts: of each part `(K + 1,)`, 0 for the background.
            objects: of each object `(num_objects,)`; not looked at where they are no classes.
        """
        if not self.finds_objects:
            return parts
        assert objects is not None, "objects are classes, so they have counts"
        return torch.cat([parts[: self._first_object], objects])


def united(parts: Instances, label: Tensor) -> Instances:
    """The whole object of an image: the union of its parts; none where it shows no part.

    Args:
        parts: `boxes (N, 4)`, tight, and `masks (N, H, W)`; N may be 0.
        label: object category, of one element.

    Returns:
        `boxes (M, 4)`, `labels (M,)` int64 and `masks (M, H, W)`, M = 1 or 0.
    """
    boxes, masks = parts["boxes"], parts["masks"]
    labels = label.reshape(1).to(boxes.device, torch.int64)
    if not len(masks):
        return {"boxes": boxes, "labels": labels[:0], "masks": masks}
    box = torch.cat([boxes[:, :2].amin(dim=0), boxes[:, 2:].amax(dim=0)])
    return {"boxes": box[None], "labels": labels, "masks": masks.amax(dim=0, keepdim=True)}


def _checked(object_parts: Tensor | None) -> Tensor:
    if object_parts is None:
        raise UserError(
            "object_parts is missing: pass PartVocabulary.object_parts, "
            "which the command line takes from the data module"
        )
    if object_parts.dtype != torch.bool or object_parts.ndim != 2 or object_parts.shape[1] < 2:
        raise UserError(
            "object_parts must be bool (num_objects, K + 1) with K >= 1, got "
            f"{object_parts.dtype} {tuple(object_parts.shape)}"
        )
    if not object_parts[:, 0].all() or not object_parts.any(dim=0).all():
        raise UserError(
            "object_parts must be True in column 0, the background, and every part must belong "
            "to an object"
        )
    return object_parts
