"""Stage 3: multi-scale part-supervised model, trained adversarially."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from datamodules.files.errors import UserError
from modules.attacks.folding import folded
from modules.attacks.noise import image_generators
from modules.attacks.statistics import under_attack
from modules.attacks.training_attack import TrainingAttack
from modules.losses.adversarial import AdversarialCrossEntropy, Trades
from modules.losses.mask_classes import Supervision, mask_class_matrix, mask_labels
from modules.losses.part_focal import PartFocalLoss
from modules.networks.images import as_float
from modules.networks.preprocessing import (
    CROP,
    INTERPOLATION,
    ImageFormat,
    imagenet_normalisation,
)
from modules.networks.structures import NetworkSettings
from modules.optimisation.parameter_groups import parameter_groups, vectors
from modules.optimisation.schedules import Schedule, scheduled
from modules.state_dicts.finite import NotFiniteError, not_finite
from modules.state_dicts.hyper_parameters import make_plain
from modules.weights.classifier_export import export_network
from modules.weights.initial_weights import load_initial_weights
from modules.weights.normalisation_records import RECORD, of_checkpoint
from modules.weights.part_network_folder import find_normalisation

WARMUP_START = 0.005  # the authors' code: from 1e-3 to 0.2


class MPM(LightningModule):
    """Adversarial training of a classifier that is supervised by parts (PartImageNet++ §4.2).

    The loss is `class_loss_weight * L_cls + part_loss_weight * L_seg` on adversarial images; the
    attack maximises `L_cls` only and computes nothing of the parts. `part_loss_weight: 0` leaves
    the bypass out: vanilla adversarial training. An attack of `eps: 0` trains on clean images.

    Args:
        object_parts: bool `(num_objects, K + 1)`, which parts can occur on which object.
        network: structure, architecture and size of the network.
        weights: initial weights, a clean checkpoint of the same network, a run folder or what else
            `load_initial_weights` knows; None starts fresh.
        fresh_classifier: where `weights` have none, or one for other classes, the classifier
            starts anew; else that is an error.
        train_only_new: freeze what `weights` gave but the classifier, statistics still update: the
            epoch of head alignment of the authors' code.
        attack: attack of training and validation.
        objective: `pgd` trains on adversarial images; `trades` on clean ones, with the divergence
            of the adversarial predictions from the clean ones (Zhang et al. 2019).
        trades_weight: beta, the weight of that divergence.
        class_loss_weight: of the classification loss, 1 in the paper.
        part_loss_weight: lambda of the paper.
        supervision: what the masks show, parts or (Tab. S6) the union of them as one object class.
        label_smoothing: of classes and of part labels, in [0, 1).
        optimizer: called with the parameter groups.
        schedule: course of the learning rate.
        decay_norms: False exempts biases and norms from weight decay.
        compile_network: run attack and training step through `torch.compile`.

    Attributes:
        loss_terms: terms of the last step's loss by name, detached.
        one_step_ended: ends the part of the training whose attack takes one step, at once.

    Raises:
        UserError: if `object_parts` is missing or the network does not fit.
    """

    def __init__(
        self,
        object_parts: Tensor | None = None,
        network: NetworkSettings = NetworkSettings(),
        weights: Path | None = None,
        fresh_classifier: bool = False,
        train_only_new: bool = False,
        attack: TrainingAttack = TrainingAttack(),
        objective: Literal["pgd", "trades"] = "pgd",
        trades_weight: float = 6.0,
        class_loss_weight: float = 1.0,
        part_loss_weight: float = 1.0,
        supervision: Supervision = "parts",
        label_smoothing: float = 0.1,
        optimizer: OptimizerCallable = torch.optim.SGD,
        schedule: Schedule = Schedule(warmup_start=WARMUP_START),
        decay_norms: bool = False,
        compile_network: bool = False,
    ) -> None:
        super().__init__()
        if object_parts is None:
            raise UserError("MPM needs object_parts, the matrix of objects x parts of the data")
        self.save_hyperparameters(ignore=["object_parts", "optimizer", "weights"])
        make_plain(self)
        self.loss_terms: dict[str, Tensor] = {}
        self.settings = network
        self.supervision: Supervision = supervision
        self.part_loss_weight = part_loss_weight
        self.class_loss_weight = class_loss_weight
        self.training_attack = attack
        self.schedule = schedule
        self.decay_norms = decay_norms
        self.compile_network = compile_network
        # A plain function, as the average of the weights deep-copies the module: the callable that
        # the command line makes drags its parser along.
        self.optimizer = lambda parameters: optimizer(parameters)
        self.num_objects = object_parts.shape[0]
        self.mask_classes = object_parts[:, :0]
        if part_loss_weight:
            self.mask_classes = mask_class_matrix(object_parts, supervision)
        self.network = network.build(self.mask_classes)
        if weights is None:
            rank_zero_info(str(find_normalisation(self.network)))
        else:
            load_initial_weights(
                self.network,
                weights,
                fresh_classifier=fresh_classifier or train_only_new,
                keep_normalisation=network.mean is not None,
            )
        if train_only_new:
            self.network.freeze_backbone()
        self.objective = AdversarialCrossEntropy(label_smoothing)
        if objective == "trades":
            self.objective = Trades(label_smoothing, trades_weight)
        self.part_loss = PartFocalLoss(label_smoothing=label_smoothing, compiled=compile_network)
        self.attack = attack.of_training()
        self.one_step_attack = attack.of_training(one_step=True)
        self.one_step_ended = False
        self._turn = 0
        self.val_attack = attack.of_validation()
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

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Notes which of the batches that its step accumulates this is."""
        self._turn = batch_idx % self.trainer.accumulate_grad_batches

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss on adversarial images (clean ones in the first `clean_epochs`)."""
        clean, labels = self._pixels(batch), batch["label"]
        images = clean
        if self.training_attack.attacks_in(self.current_epoch):
            images = self._adversarial(clean, labels)
        logits, levels = self.network.forward_with_parts(images)
        if images is clean:
            class_loss = self.objective.cross_entropies(logits, labels).mean()
        else:
            class_loss = self.objective.loss(self.network.surrogate, clean, labels, logits)
        loss = self.class_loss_weight * class_loss
        self.loss_terms = {"class_loss": class_loss.detach()}
        if levels:
            masks = mask_labels(batch["part_labels"], labels, self.supervision)
            part_loss = self.part_loss.over_levels(levels, masks, batch["part_weight"])
            loss = loss + self.part_loss_weight * part_loss
            self.loss_terms["part_loss"] = part_loss.detach()
            self.log_dict({f"train/{name}": value for name, value in self.loss_terms.items()})
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Accuracy on clean images and under PGD.

        Raises:
            NotFiniteError: if the network's answers are not finite.
        """
        images, labels = self._pixels(batch), batch["label"]
        generator = torch.Generator(self.device).manual_seed(batch_idx)
        adversarial = self.val_attack(
            images,
            lambda x: F.cross_entropy(self.network.surrogate(x), labels, reduction="none"),
            generator,
        )
        logits = {"clean": self.network(images), "adversarial": self.network(adversarial)}
        if wrong := not_finite(logits):  # they would answer class 0
            raise NotFiniteError(
                f"the logits of {' and '.join(wrong)} validation images are not finite",
                "use another checkpoint, or --trainer.precision=32-true",
            )
        self.accuracy(logits["clean"], labels)
        self.robust_accuracy(logits["adversarial"], labels)
        metrics = {"val/acc": self.accuracy, "val/robust_acc": self.robust_accuracy}
        self.log_dict(metrics, on_epoch=True, prog_bar=True, batch_size=len(labels))

    def predict_parts(self, images: Tensor) -> Tensor | None:
        """Part ids `(B, h, w)` at the finest level, None without parts.

        Args:
            images: `(B, 3, H, W)`, uint8 or float in [0, 1].
        """
        _, levels = self.network.forward_with_parts(as_float(images))
        return levels[0].logits().argmax(1) if levels else None

    def takes_one_step(self, epoch: int) -> bool:
        """Whether the attack of an epoch takes one step.

        Raises:
            UserError: if that depends on a number of epochs that is not known.
        """
        if self.one_step_ended or not self.training_attack.one_step_until:
            return False
        return self.training_attack.is_one_step(epoch, self.trainer.max_epochs)

    def export(self, folder: Path, crop_pct: float = CROP) -> None:
        """Writes the network as it is deployed: without a bypass, a folder that timm loads.

        Args:
            folder: gets `config.json`, or `part_network.json` where parts stay in at inference,
                and `model.safetensors`.
            crop_pct: share of the resized shorter side that the crop of validation keeps.
        """
        images = ImageFormat(self.settings.image_size, crop_pct, INTERPOLATION)
        export_network(self.network, folder, self.settings, self.mask_classes, images)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Notes the normalisation, which is no weight."""
        mean, std = find_normalisation(self.network).values
        checkpoint[RECORD] = {"mean": mean, "std": std}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to go on with images that are normalised in another way.

        Raises:
            UserError: if the checkpoint's normalisation is not that of this network.
        """
        mine = find_normalisation(self.network)
        its = of_checkpoint(checkpoint, "the checkpoint") or imagenet_normalisation("ImageNet's")
        if its.values != mine.values:
            raise UserError(
                f"the checkpoint was trained on images normalised by mean and std {its.values}, "
                f"but this run's by {mine.values} ({mine.source}): begin another run folder with "
                "this one as --model.init_args.weights"
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser with its schedule, by optimiser step."""
        undecayed = () if self.decay_norms else vectors(self)
        optimizer = self.optimizer(parameter_groups(self.named_parameters(), undecayed=undecayed))
        return scheduled(optimizer, self.schedule, self._extent)

    def _extent(self) -> tuple[float, int]:
        return int(self.trainer.estimated_stepping_batches), self.trainer.max_epochs or 1

    @staticmethod
    def _pixels(batch: dict[str, Any]) -> Tensor:
        """Images of a batch, uint8 or float in [0, 1], as float in [0, 1]."""
        return as_float(batch["image"].to(memory_format=torch.channels_last))

    def _adversarial(self, images: Tensor, labels: Tensor) -> Tensor:
        """Adversarial images under the present strength of the attack; parts play no role."""
        fold = nullcontext() if self.compile_network else folded(self.network)  # compilers fuse
        one_step = self.takes_one_step(self.current_epoch)
        attack = self.one_step_attack if one_step else self.attack
        noise = image_generators(
            len(images), self.global_step, self.global_rank, self.device, self._turn
        )
        with under_attack(self.network, self.training_attack.mode), fold:
            return attack(
                images,
                self.objective.attack_loss(self.network.surrogate, images, labels),
                noise,
                eps_factor=self.training_attack.eps_factor(self.current_epoch),
                step_factor=self.training_attack.step_factor(self.current_epoch),
            )
