"""Stage 1: the part segmenter (PartImageNet++ §4.1)."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from datamodules.files.errors import UserError
from modules.metrics.coco_ap import CocoMaskAP, MaskMetrics
from modules.networks.images import as_float
from modules.networks.part_roi_heads import Detections
from modules.networks.segmenter_engines import segmenter_network
from modules.optimisation.parameter_groups import parameter_groups
from modules.optimisation.schedules import by_step, cosine, multistep

UNFILTERED, FILTERED = "", "_filtered"


class PartSegmenter(LightningModule):
    """Mask R-CNN with one class per part category, trained on human part masks.

    Validation logs COCO mask AP (`val/segm_AP`, `segm_AP50`, `segm_AP75`, `segm_APs`, `segm_APm`,
    `segm_APl`, -1 where no mask has the size) and the same with the category filter
    (`val/segm_AP_filtered`, ...), both from one pass; `mask_metrics` keeps them by part.

    A checkpoint's `hyper_parameters` with the vocabulary's matrix rebuild the network:
    `PartSegmenter(**hyper_parameters, object_parts=...)`; nothing is downloaded then.

    Args:
        object_parts: bool `(num_objects, K + 1)`, which parts occur on which object; column 0 is
            the background. The command line fills it in from the data.
        backbone: name of a timm network with four stages (`features_only`).
        pretrained: start from timm's weights, which are downloaded.
        weights: local file with the backbone's weights, used instead of a download.
        fpn_channels: channels of the feature pyramid.
        mask_channels: channels of the convolutions of the mask head.
        box_head_dim: width of the box head.
        min_size: the shorter side of an image is resized to this, in pixels ...
        max_size: ... unless the longer side would exceed this.
        anchor_sizes: side of the anchors on the five pyramid levels, in pixels.
        rpn_proposals: proposals kept of each image.
        rois_per_image: proposals sampled for the losses of each image.
        score_threshold: detections need a higher score, in [0, 1].
        detections_per_image: at most this many detections.
        engine: `torchvision`, or `detectron2` where that optional package is installed.
        rpn_convs: 3x3 convolutions of the region proposal network.
        head_norm: normalisation in pyramid, box and mask head: "" for none, "GN", "BN" or
            "SyncBN"; with one the box head has four convolutions and one layer.
        class_loss: `softmax` cross-entropy, or the `federated` sigmoid loss (Zhou et al. 2021),
            which weighs classes by the `image_counts` of the data module.
        detections_per_part: under the category filter, at most this many detections for every
            part of the object (and never more than `detections_per_image`); None for no cap.
        grad_checkpointing: recompute the backbone's blocks in the backward pass, less memory.
        layer_decay: factor of the learning rate from one backbone layer to the one before it,
            in (0, 1]; 1 trains all layers at the same rate.
        decay_norms: False exempts biases, norms and position embeddings from weight decay.
        optimizer: makes the optimiser from the parameters.
        warmup_steps: optimiser steps of linear warm-up.
        schedule: after the warm-up, cosine to zero, or a tenth of the rate at each milestone.
        milestones: fractions of the training for `schedule: multistep`.

    Raises:
        UserError: if `object_parts` is missing or not such a matrix, the backbone is unfit,
            or detectron2 is chosen and not installed.
        MissingInputError: if `weights` does not exist.
    """

    object_parts: Tensor

    def __init__(
        self,
        object_parts: Tensor | None = None,
        backbone: str = "resnet18",
        pretrained: bool = False,
        weights: Path | None = None,
        fpn_channels: int = 256,
        mask_channels: tuple[int, ...] = (256, 256, 256, 256),
        box_head_dim: int = 1024,
        min_size: int = 800,
        max_size: int = 1333,
        anchor_sizes: tuple[int, int, int, int, int] = (32, 64, 128, 256, 512),
        rpn_proposals: int = 1000,
        rois_per_image: int = 512,
        score_threshold: float = 0.05,
        detections_per_image: int = 100,
        engine: Literal["torchvision", "detectron2"] = "torchvision",
        rpn_convs: int = 1,
        head_norm: Literal["", "BN", "SyncBN", "GN"] = "",
        class_loss: Literal["softmax", "federated"] = "softmax",
        detections_per_part: int | None = None,
        grad_checkpointing: bool = False,
        layer_decay: float = 1.0,
        decay_norms: bool = True,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        warmup_steps: int = 100,
        schedule: Literal["cosine", "multistep"] = "cosine",
        milestones: tuple[float, ...] = (0.5, 0.75),
    ) -> None:
        super().__init__()
        # What is left out is either no plain value or would start a download when rebuilt.
        self.save_hyperparameters(ignore=["object_parts", "optimizer", "pretrained", "weights"])
        self.register_buffer("object_parts", _checked(object_parts), persistent=False)
        self.network = segmenter_network(
            engine,
            backbone,
            pretrained,
            weights,
            fpn_channels,
            grad_checkpointing,
            num_classes=self.object_parts.shape[1],
            mask_channels=mask_channels,
            box_head_dim=box_head_dim,
            min_size=min_size,
            max_size=max_size,
            anchor_sizes=anchor_sizes,
            rpn_proposals=rpn_proposals,
            rois_per_image=rois_per_image,
            rpn_convs=rpn_convs,
            head_norm=head_norm,
            class_loss=class_loss,
            score_threshold=score_threshold,
            detections_per_image=detections_per_image,
            detections_per_part=detections_per_part,
        )
        self.class_loss = class_loss
        self.layer_decay = layer_decay
        self.decay_norms = decay_norms
        # A plain function, as the average of the weights deep-copies the module: the callable that
        # the command line makes drags its parser along.
        self.optimizer = lambda parameters: optimizer(parameters)
        self.warmup_steps = warmup_steps
        self.schedule = schedule
        self.milestones = milestones
        self.average_precision = CocoMaskAP((UNFILTERED, FILTERED))
        self.mask_metrics: dict[str, MaskMetrics] = {}  # of the last validation, by suffix

    def setup(self, stage: str) -> None:
        """Hands the class frequencies of the training images to the federated loss."""
        if stage != "fit" or self.class_loss != "federated":
            return
        counts = getattr(getattr(self.trainer, "datamodule", None), "image_counts", None)
        if counts is None:
            raise UserError(
                "class_loss 'federated' needs a data module with `image_counts`: train with "
                "PartDetectionDataModule or choose class_loss 'softmax'"
            )
        self.network.set_class_counts(counts)

    def predict(self, images: list[Tensor], labels: Tensor | None) -> list[Detections]:
        """Part masks of images; the module must be in eval mode.

        Args:
            images: `(3, H, W)`, float in [0, 1] or uint8, sizes may differ.
            labels: object categories `(B,)` for the category filter; None predicts without it.

        Returns:
            For each image `boxes (N, 4)` as x1, y1, x2, y2 in pixels, `labels (N,)` part ids in
            1..K, `scores (N,)` of the full distribution, `masks (N, H, W)` bool; by falling score.
        """
        allowed = None if labels is None else self.object_parts[labels]
        return self.network.detect([as_float(image) for image in images], [allowed])[0]

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Sum of the losses of region proposals, boxes, classes and masks."""
        losses = self.network([as_float(image) for image in batch["image"]], batch["target"])
        losses["loss"] = torch.stack(list(losses.values())).sum()
        size = len(batch["image"])
        self.log_dict({f"train/{k}": v.detach() for k, v in losses.items()}, batch_size=size)
        self.log("loss", losses["loss"].detach(), prog_bar=True, logger=False, batch_size=size)
        return losses["loss"]

    def on_validation_epoch_start(self) -> None:
        """Starts a new measurement."""
        self.average_precision.reset()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, list[Detections]]:
        """Detects with and without the filter; the backbone and the box head run once.

        Returns:
            The detections of each image, as `predict` gives them, by the suffix of their metrics.
        """
        filters = [None, self.object_parts[batch["label"]]]
        images = [as_float(image) for image in batch["image"]]
        plain, filtered = self.network.detect(images, filters)
        for i, key in enumerate(batch["key"]):
            found = {UNFILTERED: plain[i], FILTERED: filtered[i]}
            self.average_precision.update(key, batch["target"][i], found)
        return {UNFILTERED: plain, FILTERED: filtered}

    def on_validation_epoch_end(self) -> None:
        """Logs AP, AP50, AP75, APs, APm and APl, the same values on every rank."""
        self.mask_metrics = self.average_precision.compute()
        for suffix, metrics in self.mask_metrics.items():
            values = asdict(metrics.summary())
            self.log_dict({f"val/segm_{name}{suffix}": v for name, v in values.items()})
        self.average_precision.reset()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimiser with linear warm-up, then cosine or multistep, per step."""
        optimizer = self.optimizer(self._parameter_groups())
        for group in optimizer.param_groups:
            group["lr"] *= group.get("lr_scale", 1.0)
        return by_step(optimizer, self._factor)

    def _parameter_groups(self) -> Any:
        if self.layer_decay == 1 and self.decay_norms:
            return self.parameters()
        return parameter_groups(self.network, self.layer_decay, self.decay_norms)

    def _factor(self, step: int) -> float:
        """Learning rate at `step` relative to the optimiser's own."""
        if step < self.warmup_steps or step == 0:
            return (step + 1) / max(1, self.warmup_steps)
        # Not asked for any earlier: it makes Lightning build the training loader, and before a
        # checkpoint is restored that loader would start at the wrong batch.
        total = max(1, int(self.trainer.estimated_stepping_batches))
        if self.schedule == "multistep":
            return multistep(step, total, self.milestones)
        return cosine(step, self.warmup_steps, total)


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
