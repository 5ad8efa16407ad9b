"""Evaluation of a trained classifier under threat models."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from datamodules.files.errors import UserError
from modules.attacks.gradient_paths import judgment_blocks
from modules.attacks.library_warnings import library_warnings
from modules.attacks.probe import probe_classifier
from modules.attacks.smoothing import RandomisedSmoothing
from modules.attacks.threats import Threat
from modules.attacks.traced_autoattack import STANDING, WRONG_BEFORE
from modules.networks.class_groups import ClassGroups
from modules.networks.part_network import PartNetwork
from modules.state_dicts.finite import FiniteLogits
from modules.weights.classifier_folder import image_format
from modules.weights.classifier_sources import open_classifier, with_parts


class RobustnessEvaluator(LightningModule):
    """Attacks fixed chunks of images; runs under `test` with `inference_mode: false`.

    A batch is one unit of work: a chunk of images and the name of the threat it stands under.
    Whatever path an attack takes through the network, its images are judged by the true `forward`.

    Attributes:
        source: what the network was made of, None for a module.

    Args:
        model: run folder with `export/`, timm folder, or checkpoint file; or any network by
            `class_path`, `init_args`, `weights`, `mean` and `std`, see `open_classifier`; or a
            module of pixels in [0, 1].
        threats: threat models by name.
        object_parts: bool `(num_objects, K + 1)`; its number of objects must be the number of
            classes of the model.
        channels_last: lay weights out channels-last: faster, but sums are rounded differently than
            in a direct call of an attack on the same network.
        groups: group of each class, int64 `(num_classes,)`, -1 for a class that is masked out;
            labels, predictions and attacks are of groups then, see `ClassGroups`.

    Raises:
        MissingInputError: if there is no such model.
        UserError: if its weights are wrong, it has another number of classes, or a threat needs
            parts that it has not.
    """

    def __init__(
        self,
        model: Path | dict[str, Any] | nn.Module,
        threats: dict[str, Threat],
        object_parts: Tensor | None = None,
        channels_last: bool = False,
        groups: Tensor | None = None,
    ) -> None:
        super().__init__()
        whole = isinstance(model, nn.Module)
        ignored = ["object_parts", "groups", "threats", *(["model"] if whole else [])]
        self.save_hyperparameters(ignore=ignored)
        self.threats = threats
        network, self.fingerprint, self.model_name = open_classifier(model)
        self.images = image_format(network)
        self.num_objects = None if object_parts is None else object_parts.shape[0]
        self._check_classes(getattr(network, "num_classes", None))
        self.groups = groups
        self.network = self._answering(network)
        self.network.register_forward_hook(FiniteLogits(self.model_name))
        # the part branch is read before the memory format: weights are compared
        self.source = None if isinstance(model, nn.Module) else model
        self._parts: PartNetwork | ClassGroups | None = None
        if any(threat.needs_parts for threat in threats.values()):
            self.part_network()
        if channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        blind = [
            name
            for name, threat in threats.items()
            if threat.norm and threat.through == "forward"
            if not (threat.needs_parts or threat.black_box)
        ]
        if blind and judgment_blocks(self.network):
            raise UserError(
                f"{self.model_name} has a judgment block, which passes no gradient: set through: "
                f"surrogate or straight_through for {', '.join(blind)}, or use PartPGD"
            )
        self._counts: dict[str, tuple[int, int]] = {}

    def part_network(self) -> PartNetwork | ClassGroups:
        """The network with its part branch.

        Raises:
            UserError: if the model has none; the message says why.
        """
        if self._parts is None:
            whole = self.network.network if isinstance(self.network, ClassGroups) else self.network
            source = whole if self.source is None else self.source
            self._parts = self._answering(with_parts(source, whole)).to(self.device)
        return self._parts

    @cached_property
    def without_parts(self) -> str:
        """Why the model has no part branch; empty if it has one."""
        try:
            self.part_network()
        except ValueError as error:
            return str(error)
        return ""

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, num_classes)`, or of the groups, of images `(B, 3, H, W)` in [0, 1]."""
        return self.network(images)

    def probe(self, images: Tensor, threats: Sequence[str]) -> list[str]:
        """Refuses a model whose figures would be wrong before it is attacked.

        Args:
            images: a few, uint8 `(B, 3, H, W)`.
            threats: names of those by which it will be attacked.

        Returns:
            What makes the figures doubtful, one line each.

        Raises:
            UserError: see `probe_classifier`.
        """
        whole = self.network.network if isinstance(self.network, ClassGroups) else self.network
        number = self.num_objects if self.groups is None else len(self.groups)
        attacks = {name: self.threats[name] for name in threats}
        pixels = images.to(self.device).float() / 255
        return probe_classifier(whole, pixels, self.model_name, number, attacks)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Attacks one unit.

        Args:
            batch: `image (B, 3, H, W) uint8`, `label (B,)`, `threat` and `attack_seed`; perhaps
                `part_map`, which asks for part maps, and `kept`, a folder for what a long attack
                found; without images the unit is not needed.
            batch_idx: position of the batch.

        Returns:
            On the CPU, for each image: `clean_prediction`, `adversarial_prediction`, `robust`
            (right both before and under attack), `broken_by` (a list, see `Outcome`), the
            distances `linf`, `l2` and `l1` of the adversarial image in [0, 1] pixel units, and
            `adversarial (B, 3, H, W)` in [0, 1]; and of the unit `warnings`, a list of what the
            attack library warned of. With `part_map` also `clean_parts` and
            `adversarial_parts (B, h, w)`, part ids at the finest level, if the model has parts.
            Of randomised smoothing also `radius` and `abstained`; its `adversarial_prediction` is
            that of the smoothed classifier, `robust` whether that is right, and nothing is moved.
            Nothing without images.

        Raises:
            UserError: if the model has another number of classes than the data.
        """
        if "image" not in batch:
            return {}
        images = batch["image"].float() / 255
        labels, threat = batch["label"], self.threats[batch["threat"]]
        with torch.no_grad():
            logits = self.network(images)
        if self.groups is None:
            self._check_classes(logits.shape[1])
            if (largest := int(labels.max())) >= logits.shape[1]:
                raise UserError(
                    f"label {largest} of the list is beyond the {logits.shape[1]} classes of "
                    f"model {self.model_name}: give the list of the data it was trained on"
                )
        clean_prediction = logits.argmax(1)
        if isinstance(threat, RandomisedSmoothing):
            return self._certify(threat, batch, images, clean_prediction)
        attacked = self.part_network() if threat.needs_parts else self.network
        with library_warnings() as said:
            kept = Path(batch["kept"]) if "kept" in batch else None
            found = threat.outcome(attacked, images, labels, batch["attack_seed"], kept)
        adversarial, adversarial_prediction = found.images, found.predictions
        if adversarial_prediction is None:
            with torch.no_grad():
                adversarial_prediction = self.network(adversarial).argmax(1)
        right = clean_prediction == labels
        robust = right & (adversarial_prediction == labels)
        self._show(batch["threat"], robust)
        names = found.broken_by or [str(threat.settings["attack"])] * len(labels)
        distance = (adversarial - images).flatten(1)
        outcome = {
            "clean_prediction": clean_prediction,
            "adversarial_prediction": adversarial_prediction,
            "robust": robust,
            "linf": torch.linalg.vector_norm(distance, torch.inf, dim=1),
            "l2": torch.linalg.vector_norm(distance, 2, dim=1),
            "l1": torch.linalg.vector_norm(distance, 1, dim=1),
            "adversarial": adversarial,
        }
        if "part_map" in batch and not self.without_parts:
            outcome["clean_parts"] = self._part_ids(images)
            outcome["adversarial_parts"] = self._part_ids(adversarial)
        broken_by = [
            STANDING if stands else name if was_right else WRONG_BEFORE
            for name, stands, was_right in zip(names, robust.tolist(), right.tolist(), strict=True)
        ]
        lists = {"broken_by": broken_by, "warnings": said}
        return {name: value.cpu() for name, value in outcome.items()} | lists

    def _certify(
        self,
        threat: RandomisedSmoothing,
        batch: dict[str, Any],
        images: Tensor,
        clean_prediction: Tensor,
    ) -> dict[str, Any]:
        found = threat.certify_all(self.network, images, batch["key"])
        robust = found["prediction"] == batch["label"].cpu()
        self._show(batch["threat"], robust)
        distances = dict.fromkeys(("linf", "l2", "l1"), torch.zeros(len(images)))
        names = [STANDING if right else str(threat.settings["attack"]) for right in robust.tolist()]
        return {
            "clean_prediction": clean_prediction.cpu(),
            "adversarial_prediction": found["prediction"],
            "robust": robust,
            "radius": found["radius"],
            "abstained": found["abstained"],
            **distances,
            "broken_by": names,
            "warnings": [],
        }

    @torch.no_grad()
    def _part_ids(self, images: Tensor) -> Tensor:
        return self.part_network().forward_with_parts(images)[1][0].logits().argmax(1)

    def _answering(self, network: nn.Module) -> Any:
        network.requires_grad_(False)
        return network if self.groups is None else ClassGroups(network, self.groups)

    def _check_classes(self, number: object) -> None:
        if isinstance(number, int) and self.num_objects not in (None, number):
            raise UserError(
                f"model {self.model_name} has {number} classes, the data has "
                f"{self.num_objects} object categories: give the data it was trained on; the "
                "folders of train/, where there is one (they may be empty), else of val/ are them"
            )

    def _show(self, name: str, robust: Tensor) -> None:
        """Shows the accuracy of this process so far; the records hold the result."""
        right, total = self._counts.get(name, (0, 0))
        right, total = right + int(robust.sum()), total + len(robust)
        self._counts[name] = right, total
        self.log(name, right / total, on_step=True, on_epoch=False, prog_bar=True, logger=False)
