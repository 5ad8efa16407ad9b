"""Trained networks as givers of features: what their classifier sees, or their backbone gives."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from datamodules.files.errors import UserError
from modules.networks.normalisation import Normalise, Normalised
from modules.networks.preprocessing import ImageFormat, preprocessing_of
from modules.networks.timm_fpn import TimmFPN
from modules.state_dicts.prefixes import undo_prefixes
from modules.state_dicts.run_checkpoints import CHECKPOINTS
from modules.state_dicts.weight_files import load_checkpoint, load_strictly, state_of
from modules.weights.classifier_folder import EXPORT, fingerprint, image_format, load_classifier
from modules.weights.part_network_folder import DeployedPartNetwork, find_normalisation

PYRAMID = "network.backbone."  # of the segmenter's checkpoint


class FrozenFeatures(nn.Module):
    """Features of images in [0, 1], one vector an image.

    Args:
        normalise: the network's input normalisation.
        network: network of timm; what its classifier would see are the features.
        layer: applied to the last maps instead, if the network gives maps (`features_only`).
    """

    def __init__(
        self, normalise: Normalise, network: nn.Module, layer: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.network: Any = network
        self.layer = layer

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features `(B, C)` of images `(B, 3, H, W)` in [0, 1].

        Raises:
            UserError: if they are not finite.
        """
        normalised = self.normalise(images)
        if self.layer is None:
            last = self.network.forward_features(normalised)
            features = self.network.forward_head(last, pre_logits=True)
            features = features.flatten(1)
        else:
            maps = self.layer(self.network(normalised)[-1])
            features = maps.mean((1, 2) if isinstance(self.layer, nn.LayerNorm) else (2, 3))
        if not features.isfinite().all():
            raise UserError(
                "the network gives features that are not finite: its weights are no use"
            )
        return features

    def require_size(self, size: int) -> None:
        """Tries one black image, as some networks take but one size.

        Args:
            size: side of the square in pixels.

        Raises:
            UserError: if the network takes no such image, or its features are not finite.
        """
        try:
            self(torch.zeros(1, 3, size, size))
        except (AssertionError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"the network takes no images of {size} pixels ({reason}): give another "
                "--image_size, or leave it out"
            ) from None


class OpenedFeatures(NamedTuple):
    """A network that gives features.

    Attributes:
        network: in eval mode.
        images: what its folder says of its images; None where nothing is known.
        fingerprint: SHA-256 of its weights and description, in hexadecimal.
        what: which features these are, for people.
    """

    network: FrozenFeatures
    images: ImageFormat | None
    fingerprint: str
    what: str


def open_features(model: Path) -> OpenedFeatures:
    """Opens a network to take features from.

    Args:
        model: as for `load_classifier`; or a run folder of stage 1, or its checkpoint, whose
            backbone is taken.

    Raises:
        MissingInputError: if there is no such model.
        UserError: if a file is damaged, its weights are not those of the network, or timm does
            not give features of it.
    """
    file = _segmenter_file(model)
    if file is not None and (found := _open_segmenter(file)) is not None:
        return found
    classifier = load_classifier(model)
    network: Any = classifier.network
    what = "what the classifier sees"
    if isinstance(classifier, DeployedPartNetwork):
        network = classifier.network.backbone()
        what = "the backbone's, pooled"
    if not (hasattr(network, "forward_features") and hasattr(network, "forward_head")):
        raise UserError(
            f"model {model}: its backbone {type(network).__name__} is no network of timm, which "
            "tells features from classifier: give another model"
        )
    frozen = FrozenFeatures(_normalise_of(classifier), network)
    return OpenedFeatures(frozen.eval(), image_format(classifier), fingerprint(model), what)


def _normalise_of(classifier: Normalised | DeployedPartNetwork) -> Normalise:
    if isinstance(classifier, Normalised):
        return classifier.normalise
    return find_normalisation(classifier.network)


def _segmenter_file(model: Path) -> Path | None:
    """A checkpoint that may be a segmenter's; None where there is something to deploy."""
    file = model
    if model.is_dir() and not (model / EXPORT).is_dir():
        file = model / CHECKPOINTS / "best.ckpt"
    return file if file.is_file() and file.suffix == ".ckpt" else None


def _open_segmenter(file: Path) -> OpenedFeatures | None:
    """The backbone of a segmenter's checkpoint; None if it is a checkpoint of something else."""
    content = load_checkpoint(file)
    settings = content.get("hyper_parameters")
    if not isinstance(settings, Mapping) or not {"backbone", "detector"} <= settings.keys():
        return None
    if settings.get("engine", "torchvision") != "torchvision":
        raise UserError(
            f"{file} is a segmenter of engine {settings['engine']}, whose backbone gives no "
            "features here: give one of engine torchvision, or a network of stage 3"
        )
    detector = settings["detector"]
    try:
        pyramid = TimmFPN(
            settings["backbone"],
            detector["fpn_channels"],
            norm=detector["head_norm"],
            backbone_args=settings.get("backbone_args"),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{file} does not say what its backbone is made of ({error})") from None
    state = undo_prefixes(
        state_of(content, str(file)), [PYRAMID + name for name in pyramid.state_dict()], str(file)
    ).tensors
    own = {n.removeprefix(PYRAMID): v for n, v in state.items() if n.startswith(PYRAMID)}
    load_strictly(pyramid, own, str(file))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    frozen = FrozenFeatures(pyramid.normalisation, pyramid.body, pyramid.norms[-1])
    images = preprocessing_of(pyramid.body).images
    return OpenedFeatures(frozen.eval(), images, digest, "the segmenter's last stage, pooled")
