"""Downstream detection: what an adversarially trained recogniser is worth to a detector."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig

from datamodules.files.errors import UserError
from modules.attacks.detection_attacks import DetectionPGD, ascend
from modules.attacks.pixel_units import PixelDistance
from modules.metrics.box_ap import BoxAP
from modules.networks.detector import ClassifierPyramid, faster_rcnn
from modules.networks.detector_settings import DetectorSettings
from modules.networks.images import as_float
from modules.optimisation.parameter_groups import norm_parameters, parameter_groups
from modules.optimisation.schedules import Schedule, scheduled
from modules.state_dicts.finite import require_finite
from modules.state_dicts.weight_files import load_checkpoint, load_named, state_of
from modules.weights.detector_sources import checkpoint_of, open_backbone

CLEAN, FIGURES = "clean", ("AP", "AP50")
SCHEDULE = Schedule(warmup_steps=125, warmup_start=0.001, shape="multistep", milestones=(5 / 6,))


class DownstreamDetector(LightningModule):
    """Faster R-CNN on a recogniser, trained clean or by free adversarial training.

    Free adversarial training (Shafahi et al. 2019; for detectors Li et al. 2023, used by
    PartImageNet++ Appendix J) replays each batch: one backward pass gives the gradient of all
    losses for the weights, which are updated at every replay, and for the pixels, along whose
    sign the perturbation takes a step of `eps` before the next replay. It begins at zero for each
    batch, so that a run can be cut anywhere (the published code carries it on).

    Validation logs box `val/AP` and `val/AP50`; `test`, with `inference_mode: false`, has attacks.

    Args:
        num_classes: K + 1, with the background as class 0; the command line fills it in.
        backbone: run folder of stage 3, timm folder or checkpoint file, see `load_classifier`;
            None starts from random weights, of which none are frozen.
        weights: run folder or checkpoint of this stage to start from or to test; it knows its
            network, so `backbone` and `architecture` are not read.
        architecture: timm name of the network without a `backbone`.
        model_args: its further arguments.
        frozen_stages: so many first stages of a given backbone are not trained.
        detector: sizes of the detector.
        replays: times that each batch is trained on; 1 trains on clean images.
        eps: radius of the l_inf perturbation of training, pixel units of images in [0, 1].
        attacks: attacks of the test by name.
        attack_validation: measure the attacks in every validation, too.
        optimizer: makes the optimiser from the parameters.
        backbone_lr_factor: factor of the backbone's learning rate.
        clip_norm: gradients are clipped at this norm.
        schedule: course of the learning rate, by batches, not by replays.

    Attributes:
        loss_terms: terms of the last update's loss by name, detached.

    Raises:
        MissingInputError: if `backbone` or `weights` does not exist.
        UserError: if they do not fit, `num_classes` is missing, or a number is out of range.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        backbone: Path | None = None,
        weights: Path | None = None,
        architecture: str = "resnet50",
        model_args: dict[str, Any] | None = None,
        frozen_stages: int = 1,
        detector: DetectorSettings = DetectorSettings(),
        replays: int = 4,
        eps: PixelDistance = PixelDistance("4/255"),
        attacks: dict[str, DetectionPGD] | None = None,
        attack_validation: bool = False,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        backbone_lr_factor: float = 0.1,
        clip_norm: float = 100.0,
        schedule: Schedule = SCHEDULE,
    ) -> None:
        super().__init__()
        if num_classes is None or num_classes < 2:
            raise UserError(f"num_classes {num_classes} must count the background and one class")
        if replays < 1 or eps < 0 or not 0 <= frozen_stages <= 4:
            raise UserError(
                "replays >= 1, eps >= 0 and 0 <= frozen_stages <= 4 are needed, got "
                f"{replays=}, {eps=}, {frozen_stages=}"
            )
        if attacks is not None and CLEAN in attacks:
            raise UserError(f"attacks may not be named '{CLEAN}', the result without attack")
        self.automatic_optimization = False
        checkpoint = None if weights is None else load_checkpoint(checkpoint_of(weights))
        if checkpoint is not None and "description" not in checkpoint:
            raise UserError(f"weights {weights} are no checkpoint of a downstream detector")
        started = backbone is not None or weights is not None
        network, self.description = open_backbone(
            backbone, checkpoint, {"architecture": architecture, "model_args": model_args or {}}
        )
        self.network = faster_rcnn(
            ClassifierPyramid(
                network, detector.fpn_channels, frozen_stages if started else 0, started
            ),
            num_classes,
            detector,
            mean=self.description["mean"],
            std=self.description["std"],
        )
        if checkpoint is not None:
            load_named(self, state_of(checkpoint, str(weights)), str(weights))
        self.loss_terms: dict[str, torch.Tensor] = {}
        self.replays = replays
        self.eps = float(eps)
        self.attacks = attacks or {}
        self.attack_validation = attack_validation
        self.optimizer = optimizer
        self.backbone_lr_factor = backbone_lr_factor
        self.clip_norm = clip_norm
        self.schedule = schedule
        self.boxes = {name: BoxAP() for name in (CLEAN, *self.attacks)}
        self.precisions: dict[str, dict[str, float]] = {}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Trains on one batch, `replays` times.

        Args:
            batch: `image`, a list of `(3, H, W)` uint8 or float in [0, 1], and `target`, a list of
                `boxes (N, 4)` as x1, y1, x2, y2 in pixels and `labels (N,)`.
            batch_idx: position of the batch.
        """
        optimizer: Any = self.optimizers()
        images = points = [as_float(image) for image in batch["image"]]
        for replay in range(self.replays):
            follows = replay < self.replays - 1
            points = [point.clone().requires_grad_(follows) for point in points]
            losses = self.network(points, batch["target"])
            self.loss_terms = {name: value.detach() for name, value in losses.items()}
            loss = torch.stack(list(losses.values())).sum()
            optimizer.zero_grad()
            self.manual_backward(loss)
            if follows:
                points = ascend(points, images, self.eps, self.eps)
            self.clip_gradients(optimizer, self.clip_norm, "norm")
            optimizer.step()
        schedule: Any = self.lr_schedulers()
        schedule.step()
        size = len(images)
        self.log_dict({f"train/{k}": v.detach() for k, v in losses.items()}, batch_size=size)
        self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=size)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Detects; under attack too, if validations are to measure that."""
        self._measure(batch, self.attacks if self.attack_validation else ())

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Detects, without attack and under each one."""
        self._measure(batch, self.attacks)

    def on_validation_epoch_end(self) -> None:
        """Logs AP and AP50, the same values on every rank."""
        self._finish("val")

    def on_test_epoch_end(self) -> None:
        """Logs AP and AP50, the same values on every rank."""
        self._finish("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Notes which network the weights are of."""
        checkpoint["description"] = self.description

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimiser with its schedule; the backbone is slower, norm layers do not decay."""
        body = "network.backbone.network."
        names = [name for name, _ in self.named_parameters() if name.startswith(body)]
        groups = parameter_groups(
            self.named_parameters(),
            dict.fromkeys(names, self.backbone_lr_factor),
            norm_parameters(self),
        )
        return scheduled(self.optimizer(groups), self.schedule, self._extent)

    def _measure(self, batch: dict[str, Any], attacks: Sequence[str] | dict[str, Any]) -> None:
        images = [as_float(image) for image in batch["image"]]
        for name in (CLEAN, *attacks):
            points = images
            if name != CLEAN:
                points = self.attacks[name](self.network, images, batch["target"])
            with torch.no_grad():
                detections = self.network(points)
            for key, truth, found in zip(batch["key"], batch["truth"], detections, strict=True):
                require_finite({n: found[n] for n in ("boxes", "scores")}, f"detections of {key}")
                self.boxes[name].update(key, truth, found)

    def _finish(self, stage: str) -> None:
        measured = self.attacks if stage == "test" or self.attack_validation else ()
        self.precisions = {name: self.boxes[name].compute() for name in (CLEAN, *measured)}
        for name, values in self.precisions.items():
            suffix = "" if name == CLEAN else f"_{name}"
            self.log_dict({f"{stage}/{figure}{suffix}": values[figure] for figure in FIGURES})
            self.boxes[name].reset()

    def _extent(self) -> tuple[float, int]:
        batches = self.trainer.estimated_stepping_batches
        if self.trainer.max_steps > 0:  # the trainer counts updates, one a replay
            batches = min(batches, math.ceil(self.trainer.max_steps / self.replays))
        return batches, self.trainer.max_epochs or 1
