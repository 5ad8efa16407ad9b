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
from modules.networks.detector_categories import DetectorCategories, WholeObjects, united
from modules.networks.detector_settings import MaskDetectorSettings
from modules.networks.images import as_float
from modules.networks.part_roi_heads import Detections
from modules.networks.segmenter_engines import segmenter_network
from modules.optimisation.parameter_groups import layer_scales, parameter_groups, vectors
from modules.optimisation.schedules import Schedule, scheduled
from modules.optimisation.step_randomness import step_randomness
from modules.state_dicts.hyper_parameters import make_plain
from modules.weights.classifier_folder import weight_file
from modules.weights.normalisation_records import require_normalisation

SUFFIXES = ("", "_filtered")  # of metrics, without and with the category filter


class PartSegmenter(LightningModule):
    """Mask R-CNN with one class per part category, trained on human part masks.

    Validation logs COCO mask AP (`val/segm_AP`, `segm_AP50`, `segm_AP75`, `segm_APs`, `segm_APm`,
    `segm_APl`, -1 where no mask has the size) and the same with the category filter
    (`val/segm_AP_filtered`, ...), both from one pass; `mask_metrics` keeps them by part. Where
    whole objects are detected, `val/detected_object_AP`, ... are those of objects, and
    `object_metrics` keeps them by class label; where they alone are, parts have none.

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
        whole_objects: `beside_parts` makes the objects classes, too, `alone` makes them the only
            ones (see `DetectorCategories`); None detects parts alone. Kept in checkpoints.
        grad_checkpointing: recompute the backbone's blocks in the backward pass, less memory.
        frozen_stages: so many first stages of the backbone, and its stem, keep the weights they
            were given; torchvision engine only.
        backbone_args: further arguments of the timm network; torchvision engine only.
        layer_decay: factor of the learning rate from one backbone layer to the one before it,
            in (0, 1]; 1 trains all layers at the same rate.
        decay_norms: False exempts biases, norms and position embeddings from weight decay.
        optimizer: makes the optimiser from the parameters.
        schedule: course of the learning rate.

    Attributes:
        loss_terms: terms of the last step's loss by name, detached.
        finds_parts, finds_objects: whether such are among its classes.

    Raises:
        UserError: if `object_parts` is missing or not such a matrix, `whole_objects` is unknown,
            the backbone is unfit, the weights are of another one or of images that are
            normalised otherwise, or detectron2 is chosen and not installed.
        MissingInputError: if `weights` does not exist.
    """

    def __init__(
        self,
        object_parts: Tensor | None = None,
        backbone: str = "resnet18",
        pretrained: bool = False,
        weights: Path | None = None,
        engine: Literal["torchvision", "detectron2"] = "torchvision",
        detector: MaskDetectorSettings = MaskDetectorSettings(),
        whole_objects: WholeObjects | None = None,
        grad_checkpointing: bool = False,
        frozen_stages: int = 0,
        backbone_args: dict[str, Any] | None = None,
        layer_decay: float = 1.0,
        decay_norms: bool = True,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        schedule: Schedule = Schedule(warmup_steps=100),
    ) -> None:
        super().__init__()
        # What is left out is either no plain value or would start a download when rebuilt.
        self.save_hyperparameters(ignore=["object_parts", "optimizer", "pretrained", "weights"])
        make_plain(self)
        self.whole_objects = whole_objects
        self.categories = DetectorCategories(object_parts, whole_objects)
        self.finds_parts = self.categories.finds_parts
        self.finds_objects = self.categories.finds_objects
        file = None if weights is None else weight_file(weights)
        self.network = segmenter_network(
            engine,
            backbone,
            self.categories.num_classes,
            detector,
            pretrained=pretrained,
            weights=file,
            grad_checkpointing=grad_checkpointing,
            frozen_stages=frozen_stages,
            backbone_args=backbone_args,
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
        self.average_precision = CocoAP(SUFFIXES)
        self.object_precision = CocoAP(SUFFIXES)
        # of the last validation, by suffix; empty where such are not detected
        self.mask_metrics: dict[str, MaskMetrics] = {}
        self.object_metrics: dict[str, MaskMetrics] = {}

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
        data = getattr(self.trainer, "datamodule", None)
        counts = getattr(data, "image_counts", None)
        objects = getattr(data, "object_counts", None)
        if counts is None or (objects is None and self.finds_objects):
            raise UserError(
                "class_loss 'federated' needs a data module with `image_counts`, and with "
                "`object_counts` where objects are classes: train with PartDetectionDataModule or "
                "choose class_loss 'softmax'"
            )
        self.network.set_class_counts(self.categories.class_counts(counts, objects))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses weights of a segmenter of other classes, before their shapes do.

        Raises:
            UserError: if the checkpoint was trained with other `whole_objects`.
        """
        trained = checkpoint.get("hyper_parameters", {}).get("whole_objects")
        if trained != self.whole_objects:
            raise UserError(
                f"the checkpoint was trained with whole_objects={trained or 'null'}, this "
                f"segmenter has {self.whole_objects or 'null'}: give the checkpoint's value "
                "(configuration objects or objects_and_parts, or neither), or another checkpoint"
            )

    def predict(self, images: list[Tensor], labels: Tensor | None) -> list[Detections]:
        """Part masks of images; the module must be in eval mode.

        Args:
            images: `(3, H, W)`, float in [0, 1] or uint8, sizes may differ.
            labels: object categories `(B,)` for the category filter; None predicts without it.

        Returns:
            For each image `boxes (N, 4)` as x1, y1, x2, y2 in pixels, `labels (N,)` part ids in
            1..K, `scores (N,)` of the full distribution, `masks (N, H, W)` bool; by falling score.
            Whole objects are never among them.

        Raises:
            UserError: if the segmenter finds objects alone.
        """
        allowed = self.categories.part_filter(labels, len(images))
        return self.network.detect([as_float(image) for image in images], [allowed])[0]

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Sum of the losses of region proposals, boxes, classes and masks.

        What is random in it, such as the regions that are sampled, depends on the seed and on the
        place of the batch alone, so that a resumed run repeats it.
        """
        targets = batch["target"]
        if self.finds_objects:
            pairs = zip(targets, batch["label"], strict=True)
            targets = [self.categories.targets(parts, label) for parts, label in pairs]
        images = [as_float(image) for image in batch["image"]]
        with step_randomness(self.current_epoch, batch_idx, self.global_rank, self.device):
            losses = self.network(images, targets)
        self.loss_terms = {name: value.detach() for name, value in losses.items()}
        losses["loss"] = torch.stack(list(losses.values())).sum()
        size = len(batch["image"])
        self.log_dict({f"train/{k}": v.detach() for k, v in losses.items()}, batch_size=size)
        self.log("loss", losses["loss"].detach(), prog_bar=True, logger=False, batch_size=size)
        return losses["loss"]

    def on_validation_epoch_start(self) -> None:
        """Starts a new measurement."""
        self.average_precision.reset()
        self.object_precision.reset()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, list[Detections]]:
        """Detects with and without the filter; the backbone and the box head run once.

        Returns:
            The parts detected in each image, with labels in 1..K, by the suffix of their metrics.
        """
        filters = [None, self.categories.allowed[batch["label"]]]
        images = [as_float(image) for image in batch["image"]]
        parts: dict[str, list[Detections]] = {}
        objects: dict[str, list[Detections]] = {}
        for suffix, found in zip(SUFFIXES, self.network.detect(images, filters), strict=True):
            split = [self.categories.split(one) for one in found]
            parts[suffix] = [one for one, _ in split]
            objects[suffix] = [one for _, one in split]
        for i, key in enumerate(batch["key"]):
            target = batch["target"][i]
            if self.finds_parts:
                of_image = {suffix: found[i] for suffix, found in parts.items()}
                self.average_precision.update(key, target, of_image)
            if self.finds_objects:
                whole = united(target, batch["label"][i])
                of_image = {suffix: found[i] for suffix, found in objects.items()}
                self.object_precision.update(key, whole, of_image)
        return parts

    def on_validation_epoch_end(self) -> None:
        """Logs AP, AP50, AP75, APs, APm and APl, the same values on every rank."""
        if self.finds_parts:
            self.mask_metrics = self.average_precision.compute()
            self._log_precision("segm", self.mask_metrics)
        if self.finds_objects:
            self.object_metrics = self.object_precision.compute()
            self._log_precision("detected_object", self.object_metrics)
        self.on_validation_epoch_start()  # frees the records

    def _log_precision(self, kind: str, by_suffix: Mapping[str, MaskMetrics]) -> None:
        for suffix, metrics in by_suffix.items():
            values = asdict(metrics.summary())
            self.log_dict({f"val/{kind}_{name}{suffix}": v for name, v in values.items()})

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
