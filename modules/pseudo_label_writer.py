"""Stage 2: the trained part segmenter labels every train image (PartImageNet++ §4.1)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from pycocotools import mask as coco_mask
from torch import Tensor

from datamodules.files.errors import UserError
from modules.networks.flip_augmentation import merge_views
from modules.part_segmenter import PartSegmenter
from modules.state_dicts.prefixes import refuse_foreign_names, undo_prefixes
from modules.state_dicts.run_checkpoints import best_checkpoint
from modules.state_dicts.weight_files import load_strictly, state_of

SEGMENTER_TARGET = "make stage1-segmenter"
# Not every torch has AcceleratorError, nor does every library raise it: see `_is_of_the_device`.
DEVICE_ERRORS = (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError))


def find_checkpoint(segmenter: Path) -> Path:
    """The checkpoint that a stage 1 run folder, or a path to a checkpoint file, stands for.

    Raises:
        MissingInputError: if there is none.
    """
    return segmenter if segmenter.is_file() else best_checkpoint(segmenter, SEGMENTER_TARGET)


def load_segmenter(
    checkpoint: Path,
    object_parts: Tensor,
    score_threshold: float,
    max_instances: int,
    detections_per_part: int | None = None,
    rpn_proposals: int | None = None,
) -> PartSegmenter:
    """Rebuilds the segmenter of a checkpoint, with its (EMA) weights.

    Args:
        checkpoint: what Lightning saved of a `PartSegmenter`.
        object_parts: which parts can occur on which object, bool `(num_objects, K + 1)`.
        score_threshold: detections need a higher score, in [0, 1].
        max_instances: at most this many detections per image.
        detections_per_part: under the category filter, at most this many times the number of the
            image's own parts; None for no such limit.
        rpn_proposals: regions that are looked at in an image; None as in training.

    Raises:
        UserError: if the file is no such checkpoint or was made for another part vocabulary.
    """
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        detector = {
            "score_threshold": score_threshold,
            "detections_per_image": max_instances,
            "detections_per_part": detections_per_part,
        }
        if rpn_proposals is not None:
            detector["rpn_proposals"] = rpn_proposals
        settings = content["hyper_parameters"]
        network = PartSegmenter.from_hyper_parameters(settings, object_parts, **detector)
        state = state_of(content, str(checkpoint))
    except Exception as error:  # unpickling a damaged file raises almost anything
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{checkpoint} is not a segmenter checkpoint ({type(error).__name__}: {reason}): "
            "give the checkpoint of stage 1, or delete its run folder and run make "
            "stage1-segmenter again"
        ) from None
    own = network.state_dict()
    undone = undo_prefixes(state, own, str(checkpoint))
    state = undone.tensors
    other = [name for name in own if name in state and state[name].shape != own[name].shape]
    if other and state.keys() == own.keys():
        found, wanted = (tuple(tensors[other[0]].shape) for tensors in (state, own))
        raise UserError(
            f"{checkpoint} is a checkpoint of another vocabulary than the data's "
            f"{object_parts.shape[1] - 1} parts ({other[0]} {found} instead of {wanted}): use the "
            "annotations it was trained on, or delete its run folder and run make "
            "stage1-segmenter again"
        )
    refuse_foreign_names(undone, own, str(checkpoint), "the segmenter")
    load_strictly(network, state, str(checkpoint))
    return network


def encode_masks(masks: np.ndarray) -> list[bytes]:
    """COCO's compressed run lengths of binary masks `(N, H, W)`."""
    if not len(masks):
        return []
    stacked = np.asfortranarray(masks.transpose(1, 2, 0), dtype=np.uint8)
    return [rle["counts"] for rle in coco_mask.encode(stacked)]


def encode_record(record: dict[str, Any]) -> dict[str, Any]:
    """A prediction with its masks as run lengths.

    Apart from the prediction, as it needs no accelerator and can run beside the next batch.

    Args:
        record: one of those that `PseudoLabelWriter.predict_step` gives.

    Returns:
        `key, label, height, width, error` and `instances`, a list of
        `{part, score, box (x1, y1, x2, y2) in pixels, rle}` by descending score.
    """
    record = dict(record)
    found = record.pop("detections")
    return record | {"instances": [] if found is None else _instances(found)}


def _instances(found: dict[str, Tensor]) -> list[dict[str, Any]]:
    found = {name: value.detach().cpu() for name, value in found.items()}
    height, width = found["masks"].shape[-2:]
    drawn = found["masks"].any(-1).any(-1)  # a small box can leave no pixel above the threshold
    boxes = found["boxes"].float()
    boxes = boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))
    return [
        {"part": part, "score": score, "box": tuple(box), "rle": rle}
        for part, score, box, rle in zip(
            found["labels"][drawn].tolist(),
            found["scores"][drawn].tolist(),
            boxes[drawn].tolist(),
            encode_masks(found["masks"][drawn].numpy()),
            strict=True,
        )
    ]


def _is_of_the_device(error: Exception) -> bool:
    return isinstance(error, DEVICE_ERRORS) or (
        isinstance(error, RuntimeError) and str(error).startswith("CUDA error")
    )


class PseudoLabelWriter(LightningModule):
    """Predicts the part instances of images whose object category is known.

    Args:
        segmenter: stage 1 run folder, or a checkpoint file of it.
        object_parts: which parts can occur on which object, bool `(num_objects, K + 1)`.
        category_filter: look only for the parts of the image's own object (PartImageNet++ §4.1).
        score_threshold: detections need a higher score, in [0, 1]; scores stay in the labels, so
            a later stage can ask for more.
        max_instances: detections kept per image, those with the highest scores.
        detections_per_part: under the category filter, keep at most this many times the number
            of the object's parts, if that is less; None for no such limit.
        rpn_proposals: regions that are looked at in an image; fewer are faster and find fewer
            parts in crowded images. None as in training.
        flip_tta: look at the mirrored image too and merge what both show (`merge_views`); twice
            the time.

    Raises:
        MissingInputError: if there is no segmenter.
        UserError: if a setting is out of its range, or the segmenter cannot be loaded, was
            trained for another vocabulary or finds whole objects alone.
    """

    def __init__(
        self,
        segmenter: Path,
        object_parts: Tensor | None = None,
        category_filter: bool = True,
        score_threshold: float = 0.05,
        max_instances: int = 100,
        detections_per_part: int | None = None,
        rpn_proposals: int | None = None,
        flip_tta: bool = False,
    ) -> None:
        super().__init__()
        if object_parts is None:
            raise UserError("object_parts is needed: the datamodule's vocabulary defines it")
        if not 0 <= score_threshold <= 1:
            raise UserError(f"score_threshold ({score_threshold}) must be in [0, 1]")
        for name, value in (
            ("max_instances", max_instances),
            ("detections_per_part", detections_per_part),
            ("rpn_proposals", rpn_proposals),
        ):
            if value is not None and value < 1:
                raise UserError(f"{name} ({value}) must be at least 1")
        self.save_hyperparameters(ignore=["object_parts"])
        self.category_filter = category_filter
        self.score_threshold = score_threshold
        self.max_instances = max_instances
        self.detections_per_part = detections_per_part
        self.rpn_proposals = rpn_proposals
        self.flip_tta = flip_tta
        self.part_counts = object_parts[:, 1:].sum(1).tolist()
        self.checkpoint = find_checkpoint(Path(segmenter))
        self.network = load_segmenter(
            self.checkpoint,
            object_parts,
            score_threshold,
            max_instances,
            # a limit of the filter alone, and objects of a joint segmenter are filtered out anyway
            detections_per_part if category_filter else None,
            rpn_proposals,
        )
        if not self.network.finds_parts:
            raise UserError(
                f"{self.checkpoint} was trained with whole_objects=alone, so it finds no parts to "
                "label: give a segmenter of parts, or of objects and parts (make stage1-segmenter "
                "without the configuration objects, or with objects_and_parts)"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """What, besides the weights, decides the labels of an image."""
        return {
            "category_filter": self.category_filter,
            "score_threshold": self.score_threshold,
            "max_instances": self.max_instances,
            "detections_per_part": self.detections_per_part,
            "rpn_proposals": self.rpn_proposals,
            "flip_tta": self.flip_tta,
        }

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[dict[str, Any]]:
        """Labels a batch.

        Args:
            batch: `image` list of `(3, H, W)` uint8, `label (B,)`, `key` and `error` lists of
                str; an image with an `error` is not looked at.
            batch_idx: unused.

        Returns:
            One record per image: `key, label, height, width, error` and `detections` as
            `PartSegmenter.predict` gives them, on the network's device, None for an image with
            an `error` or one that the segmenter cannot take, whose `error` then says why;
            `encode_record` makes labels of them.

        Raises:
            UserError: if the device fails, or has no memory for one image alone.
        """
        readable = [index for index, error in enumerate(batch["error"]) if not error]
        found: dict[int, dict[str, Tensor]] = {}
        errors = dict(enumerate(batch["error"]))
        if readable:
            images = [batch["image"][index] for index in readable]
            keys = [batch["key"][index] for index in readable]
            labels = batch["label"][readable]
            found, reasons = self._detect_what_can_be(readable, keys, images, labels)
            errors.update(reasons)
        return [
            {
                "key": key,
                "label": label,
                "height": batch["image"][index].shape[1],
                "width": batch["image"][index].shape[2],
                "detections": found.get(index),
                "error": errors[index],
            }
            for index, (key, label) in enumerate(
                zip(batch["key"], batch["label"].tolist(), strict=True)
            )
        ]

    def _detect_what_can_be(
        self, positions: list[int], keys: list[str], images: list[Tensor], labels: Tensor
    ) -> tuple[dict[int, dict[str, Tensor]], dict[int, str]]:
        """Detections by position, and why there are none; of a failing batch image by image."""
        try:
            return dict(zip(positions, self._detect(images, labels), strict=True)), {}
        except Exception:  # one image, such as of 900x1 pixels, must not end a run of a million
            found, reasons = {}, {}
        for row, position in enumerate(positions):
            try:
                found[position] = self._detect([images[row]], labels[row : row + 1])[0]
            except Exception as error:
                height, width = images[row].shape[1:]
                size = f"{height}x{width} (height x width)"
                reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
                if _is_of_the_device(error):
                    raise UserError(
                        f"the device failed at {keys[row]}, {size}: {reason}; free, mend or change "
                        "it and run the same command again, everything that is there stays"
                    ) from None
                reasons[position] = f"the segmenter cannot take it, {size}: {reason}"
        return found, reasons

    def _detect(self, images: list[Tensor], labels: Tensor) -> list[dict[str, Tensor]]:
        allowed = labels if self.category_filter else None
        plain = self.network.predict(images, allowed)
        if not self.flip_tta:
            return plain
        mirrored = self.network.predict([image.flip(-1) for image in images], allowed)
        return [
            merge_views(one, other, self._limit(label))
            for one, other, label in zip(plain, mirrored, labels.tolist(), strict=True)
        ]

    def _limit(self, label: int) -> int:
        if self.detections_per_part is None or not self.category_filter:
            return self.max_instances
        return min(self.max_instances, self.detections_per_part * self.part_counts[label])
