"""Stage 3: multi-scale part-supervised model, trained adversarially."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from datamodules.files.errors import UserError
from modules.attacks.balls import Norm
from modules.attacks.folding import folded
from modules.attacks.noise import image_generators
from modules.attacks.pgd import PGD
from modules.attacks.statistics import StatisticsMode, attacked
from modules.losses.adversarial import AdversarialCrossEntropy, Trades
from modules.losses.mask_classes import Supervision, mask_classes, mask_labels
from modules.losses.part_focal import PartFocalLoss
from modules.networks.images import as_float
from modules.networks.structures import Structure, build_network
from modules.optimisation.schedules import by_step, decay_groups, warmup_cosine
from modules.weights.classifier_folder import export_network
from modules.weights.initial_weights import load_initial_weights


class MPM(LightningModule):
    """Adversarial training of a classifier that is supervised by parts (PartImageNet++ §4.2).

    The loss is `class_loss_weight * L_cls + part_loss_weight * L_seg` on adversarial images; the
    attack raises `L_cls` only and computes nothing of the parts. `part_loss_weight: 0` leaves the
    bypass out: vanilla adversarial training. `eps: 0` trains on clean images.

    Args:
        object_parts: bool `(num_objects, K + 1)`, which parts can occur on which object.
        structure: how parts and classes hang together, see `build_network`.
        architecture: timm network; for `deeplabv3plus` the name of its encoder.
        segmenter: what segments the parts of a two-stage structure.
        model_args: further arguments of the timm network.
        image_size: side of the training images in pixels, for the exported configuration.
        weights: initial weights, a clean checkpoint of the same network, a run folder or what else
            `load_initial_weights` knows; None starts fresh.
        train_only_new: freeze what `weights` gave but the classifier, statistics still update: the
            epoch of head alignment of the authors' code.
        supervision: what the masks show, parts or (Tab. S6) the union of them as one object class.
        part_loss_weight: lambda of the paper.
        class_loss_weight: of the classification loss, 1 in the paper.
        num_supervised: on how many of the last blocks parts are supervised (SVn).
        top_down: whether the bypass has its top-down path.
        label_smoothing: of classes and of part labels, in [0, 1).
        objective: `pgd` trains on adversarial images; `trades` on clean ones, with the divergence
            of the adversarial predictions from the clean ones (Zhang et al. 2019).
        trades_weight: beta, the weight of that divergence.
        eps: radius of the training attack in pixel units; 0 trains on clean images.
        attack_steps: steps t of the training attack, of size `2 * eps / t`.
        norm: ball of the training attack.
        restarts: random starts of the training attack.
        keep_best: keep each image's best iterate, see `PGD`.
        attack_mode: norm statistics under attack, `eval` or those of the batch.
        eps_warmup_epochs: adversarial epochs over which eps grows linearly to its value.
        step_warmup_epochs: adversarial epochs n over which the step grows as 0, 1/n, 2/n, ...
        clean_epochs: first epochs on clean images, where no clean checkpoint is at hand.
        val_attack_steps: steps of the attack that `val/robust_acc` measures, of size `eps / 4`.
        optimizer: called with the parameter groups.
        warmup_epochs: linear warm-up of the learning rate, then a cosine.
        min_lr_ratio: floor of the cosine, as a share of the learning rate.
        no_decay_norm_and_bias: leave biases and norm parameters out of weight decay.
        compile_network: run attack and training step through `torch.compile`.

    Raises:
        UserError: if `object_parts` is missing or the network does not fit.
    """

    def __init__(
        self,
        object_parts: Tensor | None = None,
        structure: Structure = "bypass",
        architecture: str = "resnet50",
        segmenter: Literal["backbone", "deeplabv3plus"] = "backbone",
        model_args: dict[str, Any] | None = None,
        image_size: int = 224,
        weights: Path | None = None,
        train_only_new: bool = False,
        supervision: Supervision = "parts",
        part_loss_weight: float = 1.0,
        class_loss_weight: float = 1.0,
        num_supervised: int = 3,
        top_down: bool = True,
        label_smoothing: float = 0.1,
        objective: Literal["pgd", "trades"] = "pgd",
        trades_weight: float = 6.0,
        eps: float = 4 / 255,
        attack_steps: int = 2,
        norm: Norm = "linf",
        restarts: int = 1,
        keep_best: bool = False,
        attack_mode: StatisticsMode = "eval",
        eps_warmup_epochs: int = 0,
        step_warmup_epochs: int = 0,
        clean_epochs: int = 0,
        val_attack_steps: int = 10,
        optimizer: OptimizerCallable = torch.optim.SGD,
        warmup_epochs: float = 0.0,
        min_lr_ratio: float = 0.0,
        no_decay_norm_and_bias: bool = True,
        compile_network: bool = False,
    ) -> None:
        super().__init__()
        if object_parts is None:
            raise UserError("MPM needs object_parts, the matrix of objects x parts of the data")
        self.save_hyperparameters(ignore=["object_parts", "optimizer", "weights"])
        self.supervision: Supervision = supervision
        self.part_loss_weight = part_loss_weight
        self.class_loss_weight = class_loss_weight
        self.attack_mode = attack_mode
        self.eps_warmup_epochs = eps_warmup_epochs
        self.step_warmup_epochs = step_warmup_epochs
        self.clean_epochs = clean_epochs
        self.warmup_epochs = warmup_epochs
        self.min_lr_ratio = min_lr_ratio
        self.no_decay_norm_and_bias = no_decay_norm_and_bias
        self.compile_network = compile_network
        # A plain function, as the average of the weights deep-copies the module: the callable that
        # the command line makes drags its parser along.
        self.optimizer = lambda parameters: optimizer(parameters)
        self.num_objects = object_parts.shape[0]
        self.regions = object_parts[:, :0]
        if part_loss_weight:
            self.regions = mask_classes(object_parts, supervision)
        self.network = build_network(
            structure,
            architecture,
            self.regions,
            model_args=model_args,
            segmenter=segmenter,
            num_supervised=num_supervised,
            top_down=top_down,
        )
        if weights is not None:
            load_initial_weights(self.network, weights, fresh_classifier=train_only_new)
        if train_only_new:
            self.network.freeze_backbone()
        self.objective = AdversarialCrossEntropy(label_smoothing)
        if objective == "trades":
            self.objective = Trades(label_smoothing, trades_weight)
        self.part_loss = PartFocalLoss(label_smoothing=label_smoothing, compiled=compile_network)
        self.attack = PGD(eps, attack_steps, norm=norm, restarts=restarts, keep_best=keep_best)
        self.val_attack = PGD(eps, val_attack_steps, eps / 4, norm=norm)
        self.accuracy = MulticlassAccuracy(self.num_objects, average="micro")
        self.robust_accuracy = MulticlassAccuracy(self.num_objects, average="micro")
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Class logits `(B, num_objects)` of images `(B, 3, H, W)` in [0, 1]."""
        return self.network(images)

    def on_fit_start(self) -> None:
        """Compiles, if asked; not any earlier, as the average of the weights copies the module."""
        if self.compile_network:
            self.network.compile(dynamic=False)
            compiled = torch.compile(self.network.forward_with_parts, dynamic=False)
            self.network.forward_with_parts = compiled  # type: ignore[method-assign]

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss on adversarial images (clean ones in the first `clean_epochs`)."""
        clean, labels = self._pixels(batch), batch["label"]
        images = clean
        if self.attack.eps > 0 and self.current_epoch >= self.clean_epochs:
            images = self._attacked(clean, labels)
        logits, levels = self.network.forward_with_parts(images)
        if images is clean:
            class_loss = self.objective.cross_entropies(logits, labels).mean()
        else:
            class_loss = self.objective.loss(self.network.surrogate, clean, labels, logits)
        loss = self.class_loss_weight * class_loss
        if levels:
            masks = mask_labels(batch["part_labels"], labels, self.supervision)
            part_loss = self.part_loss.over_levels(levels, masks, batch["part_weight"])
            loss = loss + self.part_loss_weight * part_loss
            self.log_dict({"train/class_loss": class_loss, "train/part_loss": part_loss})
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Accuracy on clean images and under PGD."""
        images, labels = self._pixels(batch), batch["label"]
        generator = torch.Generator(self.device).manual_seed(batch_idx)
        adversarial = self.val_attack(
            images,
            lambda x: F.cross_entropy(self.network.surrogate(x), labels, reduction="none"),
            generator,
        )
        self.accuracy(self.network(images), labels)
        self.robust_accuracy(self.network(adversarial), labels)
        metrics = {"val/acc": self.accuracy, "val/robust_acc": self.robust_accuracy}
        self.log_dict(metrics, on_epoch=True, prog_bar=True, batch_size=len(labels))

    def predict_parts(self, images: Tensor) -> Tensor | None:
        """Part ids `(B, h, w)` of images in [0, 1] at the finest level, None without parts."""
        _, levels = self.network.forward_with_parts(images)
        return levels[0].logits().argmax(1) if levels else None

    def export(self, folder: Path) -> None:
        """Writes the network as it is deployed: without a bypass, a folder that timm loads.

        Args:
            folder: gets `config.json`, or `part_network.json` where parts stay in at inference,
                and `model.safetensors`.
        """
        export_network(self.network, folder, self.hparams, self.regions)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser with a per-step warm-up and cosine."""
        optimizer = self.optimizer(
            decay_groups(self.parameters(), decay_all=not self.no_decay_norm_and_bias)
        )
        return by_step(optimizer, self._factor)

    def _factor(self, step: int) -> float:
        """Learning rate at `step` relative to the optimiser's own."""
        if step == 0:
            return warmup_cosine(0, float(self.warmup_epochs > 0), 1, self.min_lr_ratio)
        # Not asked for any earlier: it makes Lightning build the training loader, and before a
        # checkpoint is restored that loader would start at the wrong batch.
        total = int(self.trainer.estimated_stepping_batches)
        warmup = self.warmup_epochs * total / max(1, self.trainer.max_epochs or 1)
        return warmup_cosine(step, warmup, total, self.min_lr_ratio)

    @staticmethod
    def _pixels(batch: dict[str, Any]) -> Tensor:
        """Images of a batch, uint8 or float in [0, 1], as float in [0, 1]."""
        return as_float(batch["image"].to(memory_format=torch.channels_last))

    def _attacked(self, images: Tensor, labels: Tensor) -> Tensor:
        """Adversarial images under the present strength of the attack; parts play no role."""
        epoch = self.current_epoch - self.clean_epochs
        fold = nullcontext() if self.compile_network else folded(self.network)  # compilers fuse
        with attacked(self.network, self.attack_mode), fold:
            return self.attack(
                images,
                self.objective.raised(self.network.surrogate, images, labels),
                image_generators(len(images), self.global_step, self.global_rank, self.device),
                eps_factor=min(1.0, (epoch + 1) / max(1, self.eps_warmup_epochs)),
                step_factor=min(1.0, epoch / max(1, self.step_warmup_epochs))
                if self.step_warmup_epochs
                else 1.0,
            )
