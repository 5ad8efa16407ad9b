"""Stage 1: the part segmenter (PartImageNet++ §4.1)."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal, Self

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from datamodules.files.errors import UserError
from modules.metrics.coco_ap import CocoAP, MaskMetrics
from modules.networks.detector_settings import MaskDetectorSettings
from modules.networks.images import as_float
from modules.networks.part_roi_heads import Detections
from modules.networks.segmenter_engines import segmenter_network
from modules.optimisation.parameter_groups import layer_scales, parameter_groups, vectors
from modules.optimisation.schedules import Schedule, scheduled
from modules.state_dicts.hyper_parameters import make_plain
from modules.weights.classifier_folder import weight_file
from modules.weights.normalisation_records import require_normalisation

UNFILTERED, FILTERED = "", "_filtered"


class PartSegmenter(LightningModule):
    """Mask R-CNN with one class per part category, trained on human part masks.

    Validation logs COCO mask AP (`val/segm_AP`, `segm_AP50`, `segm_AP75`, `segm_APs`, `segm_APm`,
    `segm_APl`, -1 where no mask has the size) and the same with the category filter
    (`val/segm_AP_filtered`, ...), both from one pass; `mask_metrics` keeps them by part.

    `from_hyper_parameters` rebuilds the network of a checkpoint; nothing is downloaded then.

    Args:
        object_parts: bool `(num_objects, K + 1)`, which parts occur on which object; column 0 is
            the background. The command line fills it in from the data.
        backbone: name of a timm network with four stages (`features_only`).
        pretrained: start from timm's weights, which are downloaded.
        weights: the backbone's weights, used instead of a download: a file, a timm folder, a run
            folder of stage 3, or a word such as `efficientnet_lite0`, see `named_model`.
        engine: `torchvision`, or `detectron2` where that optional package is installed.
        detector: sizes of the detector.
        grad_checkpointing: recompute the backbone's blocks in the backward pass, less memory.
        frozen_stages: so many first stages of the backbone, and its stem, keep the weights they
            were given; torchvision engine only.
        layer_decay: factor of the learning rate from one backbone layer to the one before it,
            in (0, 1]; 1 trains all layers at the same rate.
        decay_norms: False exempts biases, norms and position embeddings from weight decay.
        optimizer: makes the optimiser from the parameters.
        schedule: course of the learning rate.

    Attributes:
        loss_terms: terms of the last step's loss by name, detached.

    Raises:
        UserError: if `object_parts` is missing or not such a matrix, the backbone is unfit, the
            weights are of another one or of images that are normalised otherwise, or detectron2 is
            chosen and not installed.
        MissingInputError: if `weights` does not exist.
    """

    object_parts: Tensor

    def __init__(
        self,
        object_parts: Tensor | None = None,
        backbone: str = "resnet18",
        pretrained: bool = False,
        weights: Path | None = None,
        engine: Literal["torchvision", "detectron2"] = "torchvision",
        detector: MaskDetectorSettings = MaskDetectorSettings(),
        grad_checkpointing: bool = False,
        frozen_stages: int = 0,
        layer_decay: float = 1.0,
        decay_norms: bool = True,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        schedule: Schedule = Schedule(warmup_steps=100),
    ) -> None:
        super().__init__()
        # What is left out is either no plain value or would start a download when rebuilt.
        self.save_hyperparameters(ignore=["object_parts", "optimizer", "pretrained", "weights"])
        make_plain(self)
        self.register_buffer("object_parts", _checked(object_parts), persistent=False)
        file = None if weights is None else weight_file(weights)
        self.network = segmenter_network(
            engine,
            backbone,
            self.object_parts.shape[1],
            detector,
            pretrained=pretrained,
            weights=file,
            grad_checkpointing=grad_checkpointing,
            frozen_stages=frozen_stages,
        )
        if file is not None and engine == "torchvision":
            require_normalisation(self.network, file)
        self.loss_terms: dict[str, Tensor] = {}
        self.class_loss = detector.class_loss
        self.layer_decay = layer_decay
        self.decay_norms = decay_norms
        # A plain function, as the average of the weights deep-copies the module: the callable that
        # the command line makes drags its parser along.
        self.optimizer = lambda parameters: optimizer(parameters)
        self.schedule = schedule
        self.average_precision = CocoAP((UNFILTERED, FILTERED))
        self.mask_metrics: dict[str, MaskMetrics] = {}  # of the last validation, by suffix

    @classmethod
    def from_hyper_parameters(
        cls, settings: Mapping[str, Any], object_parts: Tensor, **detector: Any
    ) -> Self:
        """The untrained module of a checkpoint's `hyper_parameters`.

        Args:
            settings: the hyper-parameters.
            object_parts: see the class.
            **detector: settings of the detector that are to be other than in training.

        Raises:
            UserError: if they are not those of a part segmenter of this version.
        """
        # LightningCLI adds entries of its own, such as `_class_path`.
        given = {name: value for name, value in settings.items() if not name.startswith("_")}
        if "detector" not in given and "fpn_channels" in given:  # version 0.1 knew no groups
            names = {field.name for field in fields(MaskDetectorSettings)} & given.keys()
            given["detector"] = {name: given.pop(name) for name in names}
            given = {n: v for n, v in given.items() if n not in ("warmup_steps", "milestones")}
            given["schedule"] = {}  # a rebuilt segmenter is not trained
        try:
            given["detector"] = MaskDetectorSettings(**(given["detector"] | detector))
            given["schedule"] = Schedule(**given["schedule"])
            return cls(object_parts, **given)
        except (KeyError, TypeError) as error:
            raise UserError(f"these are no settings of a part segmenter ({error})") from None

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
        self.loss_terms = {name: value.detach() for name, value in losses.items()}
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
        """The optimiser with its schedule, by step."""
        groups = parameter_groups(
            self.network.named_parameters(),
            layer_scales(self.network, self.layer_decay),
            () if self.decay_norms else vectors(self.network),
        )
        return scheduled(self.optimizer(groups), self.schedule, self._extent)

    def _extent(self) -> tuple[float, int]:
        return max(1, int(self.trainer.estimated_stepping_batches)), self.trainer.max_epochs or 1


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
