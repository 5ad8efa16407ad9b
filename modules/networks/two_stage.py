"""Two-stage part models: segment parts, then classify what the segmentation says."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from timm.layers import to_2tuple
from torch import Tensor, nn

from datamodules.files.errors import UserError
from modules.losses.part_level import PartLevel
from modules.networks.part_bypass import SeparableConv
from modules.networks.part_network import PartNetwork
from modules.networks.preprocessing import input_normalisation, preprocessing_of
from modules.networks.timm_networks import timm_network


class BackboneSegmenter(nn.Module):
    """Part logits from the last block of a recogniser's backbone (PartImageNet++ Appendix F).

    Args:
        architecture: timm network without its classifier.
        num_classes: K + 1.
        model_args: further arguments of the timm network.

    Raises:
        UserError: if timm has no such network, it does not take the arguments or its last block
            gives no maps.
    """

    def __init__(
        self, architecture: str, num_classes: int, model_args: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.body = timm_network(architecture, model_args, num_classes=0)
        self.out_channels = int(cast(int, self.body.num_features))
        size = (model_args or {}).get("img_size", preprocessing_of(self.body).images.size)
        _freeze_unused(self.body, architecture, size)
        self.activation = nn.Sequential(nn.GELU(), nn.BatchNorm2d(self.out_channels))
        self.head = SeparableConv(self.out_channels, num_classes)

    def forward(self, images: Tensor) -> PartLevel:
        """Features and projection of normalised images `(B, 3, H, W)`, at stride 32."""
        features = self.activation(self.body.forward_features(images))
        return PartLevel(self.head.depthwise(features), self.head.pointwise.weight.flatten(1))


@torch.inference_mode(False)  # with gradients, wherever a network is built
def _freeze_unused(body: Any, architecture: str, size: int) -> None:
    """Freezes what the maps of a network do not depend on, such as a norm before the classifier.

    It stays in checkpoints, but DDP would wait for its gradient.

    Args:
        body: timm network.
        architecture: its name.
        size: side of the images that it takes, pixels.

    Raises:
        UserError: if it gives no maps.
    """
    twin = deepcopy(body).eval().to("meta")  # where shapes and paths are known, and no values
    maps = twin.forward_features(torch.empty(1, 3, *to_2tuple(size), device="meta"))
    if not isinstance(maps, Tensor) or maps.ndim != 4 or maps.shape[1] != body.num_features:
        raise UserError(
            f"the last block of '{architecture}' gives no maps (C, h, w), from which segmenter: "
            "backbone predicts parts: set network.architecture to a convolutional network, such as "
            "resnet50 or convnext_tiny"
        )
    names = [name for name, parameter in body.named_parameters() if parameter.requires_grad]
    weights = [twin.get_parameter(name) for name in names]
    gradients = torch.autograd.grad(maps.sum(), weights, allow_unused=True)
    for name, gradient in zip(names, gradients, strict=True):
        if gradient is None:
            body.get_parameter(name).requires_grad_(False)


class DeepLabSegmenter(nn.Module):
    """Part logits of DeepLabV3+ at stride 4 (Sitawarin et al. 2023), from segmentation_models.

    Args:
        architecture: encoder's name there, such as `resnet50`; timm's as `tu-NAME`.
        num_classes: K + 1.

    Raises:
        UserError: if the package is missing or knows no such encoder.
    """

    def __init__(self, architecture: str, num_classes: int) -> None:
        super().__init__()
        try:
            import segmentation_models_pytorch as smp
        except ImportError:
            raise UserError(
                "segmenter: deeplabv3plus needs a package: pip install segmentation-models-pytorch"
            ) from None
        try:
            whole = smp.DeepLabV3Plus(architecture, encoder_weights=None, classes=num_classes)
        except KeyError as error:
            raise UserError(f"DeepLabV3+ has no encoder '{architecture}' ({error})") from None
        self.body, self.decoder = whole.encoder, whole.decoder
        self.out_channels = int(whole.segmentation_head[0].in_channels)
        self.head = nn.Conv2d(self.out_channels, num_classes, 1, bias=False)

    def forward(self, images: Tensor) -> PartLevel:
        """Features and projection of normalised images `(B, 3, H, W)`, at stride 4."""
        return PartLevel(self.decoder(self.body(images)), self.head.weight.flatten(1))


class DownsampledClassifier(nn.Module):
    """Classifies part probabilities pooled to 4x4 (P1 "Downsampled" as PartImageNet++ adapts it).

    Args:
        num_classes: K + 1 part classes.
        num_objects: object categories.
        width: C, the backbone's channels; the hidden layers have C / 4 and C.
    """

    def __init__(self, num_classes: int, num_objects: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            nn.Conv2d(num_classes, width // 4, 4),
            nn.BatchNorm2d(width // 4),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(width // 4, width),
            nn.BatchNorm1d(width),
            nn.GELU(),
            nn.Linear(width, num_objects),
        )

    def forward(self, probabilities: Tensor) -> Tensor:
        """Class logits of part probabilities `(B, K + 1, h, w)`."""
        return self.layers(probabilities)


class BoundingBoxClassifier(nn.Module):
    """Classifies where parts are: soft boxes of every part (Sitawarin et al. 2023).

    Of each part: its mean probability, the centroid and the standard deviations of its
    probability map in x and y, in units of half the image.

    Args:
        num_classes: K + 1 part classes; the background has no box.
        num_objects: object categories.
        width: of the hidden layer.
    """

    def __init__(self, num_classes: int, num_objects: int, width: int = 50) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(5 * (num_classes - 1)),
            nn.Linear(5 * (num_classes - 1), width),
            nn.BatchNorm1d(width),
            nn.Linear(width, num_objects),
        )

    def forward(self, probabilities: Tensor) -> Tensor:
        """Class logits of part probabilities `(B, K + 1, h, w)`."""
        return self.layers(soft_boxes(probabilities[:, 1:]).flatten(1))


def soft_boxes(probabilities: Tensor) -> Tensor:
    """Score, centroid and spread of probability maps.

    Args:
        probabilities: `(B, K, h, w)` in [0, 1].

    Returns:
        `(B, K, 5)`: mean probability; centroid x, y in [-1, 1]; standard deviation x, y.
    """
    height, width = probabilities.shape[-2:]
    mass = probabilities.sum((2, 3))
    found = [mass / (height * width)]
    centroids, spreads = [], []
    for size, across in ((width, 2), (height, 3)):
        place = (torch.arange(size, device=mass.device) + 0.5) * 2 / size - 1
        profile = probabilities.sum(across) / mass.clamp_min(1e-6)[..., None]
        centroid = (profile * place).sum(-1)
        variance = (profile * (place - centroid[..., None]) ** 2).sum(-1)
        centroids.append(centroid)
        spreads.append((variance + 1e-6).sqrt())
    return torch.stack([*found, *centroids, *spreads], -1)


class TwoStage(PartNetwork):
    """A part segmenter whose soft-max maps are all that the classifier sees.

    Args:
        architecture: backbone of the segmenter.
        num_objects: object categories.
        num_classes: K + 1 part classes.
        classifier: `downsampled` or `bounding_box`.
        segmenter: `backbone` (PartImageNet++) or `deeplabv3plus` (Sitawarin et al. 2023).
        model_args: further arguments of the timm network, for `backbone`.
        mean: of each channel, in [0, 1] pixel units; None for what timm's configuration says.
        std: likewise.
    """

    def __init__(
        self,
        architecture: str,
        num_objects: int,
        num_classes: int,
        classifier: Literal["downsampled", "bounding_box"],
        segmenter: Literal["backbone", "deeplabv3plus"] = "backbone",
        model_args: Mapping[str, Any] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.segmenter: BackboneSegmenter | DeepLabSegmenter
        if segmenter == "backbone":
            self.segmenter = BackboneSegmenter(architecture, num_classes, model_args)
        else:
            self.segmenter = DeepLabSegmenter(architecture, num_classes)
        self.normalise = input_normalisation(self.segmenter.body, mean, std)
        self.classifier: nn.Module
        if classifier == "downsampled":
            width = self.segmenter.out_channels
            self.classifier = DownsampledClassifier(num_classes, num_objects, width)
        else:
            self.classifier = BoundingBoxClassifier(num_classes, num_objects)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits; see `PartNetwork`."""
        return self.forward_with_parts(images)[0]

    def forward_with_parts(self, images: Tensor) -> tuple[Tensor, list[PartLevel]]:
        """Class logits and the one part level; see `PartNetwork`."""
        level = self.segmenter(self.normalise(images))
        return self.classifier(F.softmax(level.logits().float(), 1)), [level]

    def backbone(self) -> nn.Module:
        """The segmenter's timm network."""
        return self.segmenter.body
