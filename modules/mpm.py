"""Stage 3: multi-scale part-supervised model, trained adversarially."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from modules.attacks.pgd import PGD
from modules.losses.part_focal import PartFocalLoss, mixture_targets
from modules.networks.part_bypass import PartBypass
from modules.networks.recogniser import Recogniser
from modules.weights import export_timm, load_initial_weights

WARMUP_START = 0.005  # the authors' code: from 1e-3 to 0.2


class MPM(LightningModule):
    """A plain classifier whose last blocks learn parts beside it (PartImageNet++ §4.2).

    The loss is `L_cls + part_loss_weight * L_seg` on adversarial images; the attack raises
    `L_cls` only, with the network in eval mode. `part_loss_weight: 0` leaves the bypass out:
    vanilla adversarial training.

    Args:
        object_parts: bool `(num_objects, K + 1)`, which parts can occur on which object.
        architecture: timm network.
        model_args: further arguments of the timm network.
        image_size: side of the training images in pixels, for the exported configuration.
        weights: initial weights, a clean checkpoint of the same network; None starts fresh.
        part_loss_weight: lambda of the paper.
        num_supervised: on how many of the last blocks parts are supervised (SVn).
        top_down: whether the bypass has its top-down path.
        label_smoothing: of classes and of part labels, in [0, 1).
        eps: radius of the training attack in pixel units, l_inf; 0 trains on clean images.
        attack_steps: steps t of the training attack, of size `2 * eps / t`.
        clean_epochs: first epochs on clean images, where no clean checkpoint is at hand.
        val_attack_steps: steps of the attack that `val/robust_acc` measures, of size `eps / 4`.
        optimizer: called with the parameter groups.
        warmup_epochs: linear warm-up of the learning rate, then a cosine.
        min_lr_ratio: floor of the cosine, as a share of the learning rate.
        no_decay_norm_and_bias: leave biases and norm parameters out of weight decay.

    Raises:
        ValueError: if `object_parts` is missing or the network does not fit.
    """

    def __init__(
        self,
        object_parts: Tensor | None = None,
        architecture: str = "resnet50",
        model_args: dict[str, Any] | None = None,
        image_size: int = 224,
        weights: Path | None = None,
        part_loss_weight: float = 1.0,
        num_supervised: int = 3,
        top_down: bool = True,
        label_smoothing: float = 0.1,
        eps: float = 4 / 255,
        attack_steps: int = 2,
        clean_epochs: int = 0,
        val_attack_steps: int = 10,
        optimizer: OptimizerCallable = torch.optim.SGD,
        warmup_epochs: float = 0.0,
        min_lr_ratio: float = 0.0,
        no_decay_norm_and_bias: bool = True,
    ) -> None:
        super().__init__()
        if object_parts is None:
            raise ValueError("MPM needs object_parts, the matrix of objects x parts of the data")
        self.save_hyperparameters(ignore=["object_parts", "optimizer", "weights"])
        self.part_loss_weight = part_loss_weight
        self.num_supervised = num_supervised
        self.clean_epochs = clean_epochs
        self.warmup_epochs = warmup_epochs
        self.min_lr_ratio = min_lr_ratio
        self.no_decay_norm_and_bias = no_decay_norm_and_bias
        self.label_smoothing = label_smoothing
        # A plain function, as the average of the weights deep-copies the module: the callable that
        # the command line makes drags its parser along.
        self.optimizer = lambda parameters: optimizer(parameters)
        self.num_objects, num_classes = object_parts.shape
        self.recogniser = Recogniser(architecture, self.num_objects, model_args)
        if weights is not None:
            load_initial_weights(self.recogniser.network, weights)
        self.bypass: PartBypass | None = None
        if part_loss_weight:
            channels = self.recogniser.channels(num_supervised)
            self.bypass = PartBypass(channels, num_classes - 1, top_down)
        self.part_loss = PartFocalLoss(label_smoothing=label_smoothing)
        self.attack = PGD(eps, attack_steps)
        self.val_attack = PGD(eps, val_attack_steps, eps / 4)
        self.accuracy = MulticlassAccuracy(self.num_objects, average="micro")
        self.robust_accuracy = MulticlassAccuracy(self.num_objects, average="micro")
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Class logits `(B, num_objects)` of images `(B, 3, H, W)` in [0, 1]."""
        return self.recogniser(images)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss on adversarial images (clean ones in the first `clean_epochs`)."""
        images = self._pixels(batch)
        adversarial = self.attack.eps > 0 and self.current_epoch >= self.clean_epochs
        if adversarial:
            with self._attacking():
                images = self.attack(
                    images,
                    lambda x: self._class_loss(self.recogniser(x), batch["label"]),
                    self._generator(),
                )
        if self.bypass is None:
            loss = self._class_loss(self.recogniser(images), batch["label"])
        else:
            logits, features = self.recogniser.forward_with_features(images, self.num_supervised)
            class_loss = self._class_loss(logits, batch["label"])
            part_loss = self._part_loss(features, batch["part_labels"], batch["part_weight"])
            loss = class_loss + self.part_loss_weight * part_loss
            self.log_dict({"train/class_loss": class_loss, "train/part_loss": part_loss})
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Accuracy on clean images and under PGD."""
        images, labels = self._pixels(batch), batch["label"]
        generator = torch.Generator(self.device).manual_seed(batch_idx)
        adversarial = self.val_attack(
            images, lambda x: F.cross_entropy(self.recogniser(x), labels), generator
        )
        self.accuracy(self.recogniser(images), labels)
        self.robust_accuracy(self.recogniser(adversarial), labels)
        metrics = {"val/acc": self.accuracy, "val/robust_acc": self.robust_accuracy}
        self.log_dict(metrics, on_epoch=True, prog_bar=True, batch_size=len(labels))

    def predict_parts(self, images: Tensor) -> Tensor | None:
        """Part ids `(B, h, w)` of images in [0, 1], None without a bypass."""
        if self.bypass is None:
            return None
        _, features = self.recogniser.forward_with_features(images, self.num_supervised)
        return self.bypass.predict(features)

    def export(self, folder: Path) -> None:
        """Writes the plain network, without the bypass, as a folder that timm loads.

        Args:
            folder: gets `config.json` and `model.safetensors`.
        """
        export_timm(
            self.recogniser.network,
            folder,
            architecture=self.hparams["architecture"],
            model_args=self.hparams["model_args"] or {},
            num_classes=self.num_objects,
            mean=self.recogniser.normalise.mean.flatten().tolist(),
            std=self.recogniser.normalise.std.flatten().tolist(),
            image_size=self.hparams["image_size"],
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser with a per-step warm-up and cosine."""
        decayed: list[nn.Parameter] = []
        plain: list[nn.Parameter] = []
        for parameter in self.parameters():
            flat = self.no_decay_norm_and_bias and parameter.ndim <= 1
            (plain if flat else decayed).append(parameter)
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
        optimizer = self.optimizer([group for group in groups if group["params"]])
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self._factor(step))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _factor(self, step: int) -> float:
        """Learning rate at `step` relative to the optimiser's own."""
        if step == 0:
            return WARMUP_START if self.warmup_epochs else 1.0
        # Not asked for any earlier: it makes Lightning build the training loader, and before a
        # checkpoint is restored that loader would start at the wrong batch.
        total = int(self.trainer.estimated_stepping_batches)
        warmup = self.warmup_epochs * total / max(1, self.trainer.max_epochs or 1)
        if step < warmup:
            return WARMUP_START + (1 - WARMUP_START) * step / warmup
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        cosine = (1 + math.cos(math.pi * progress)) / 2
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * cosine

    @staticmethod
    def _pixels(batch: dict[str, Any]) -> Tensor:
        """Images of a batch, uint8, as float in [0, 1]."""
        return batch["image"].to(memory_format=torch.channels_last).float().div_(255)

    def _class_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def _part_loss(self, features: list[Tensor], part_labels: Tensor, weight: Tensor) -> Tensor:
        """Mean over the supervised resolutions; `part_labels` are those of the finest."""
        assert self.bypass is not None
        levels = self.bypass(features)
        losses = [
            self.part_loss(
                level.features,
                level.weight,
                mixture_targets(part_labels, level.features.shape[-2:]),
                weight,
            )
            for level in levels
        ]
        return torch.stack(losses).mean()

    @contextmanager
    def _attacking(self) -> Iterator[None]:
        """Eval mode of the attacked network, its statistics untouched, restored afterwards."""
        training = self.recogniser.training
        self.recogniser.eval()
        try:
            yield
        finally:
            self.recogniser.train(training)

    def _generator(self) -> torch.Generator:
        """Attack noise that depends on seed, step and rank only, so a resumed run repeats it."""
        entropy = (torch.initial_seed(), self.global_step, self.global_rank)
        seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))
        return torch.Generator(self.device).manual_seed(seed)
