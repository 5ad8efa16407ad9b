"""The recognition networks of the papers, by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from datamodules.files.errors import UserError
from modules.networks.judgment_block import JudgmentNetwork
from modules.networks.part_network import BypassNetwork, PartNetwork
from modules.networks.recogniser import Recogniser
from modules.networks.two_stage import TwoStage

Structure = Literal["bypass", "downsampled", "bounding_box", "judgment"]
Segmenter = Literal["backbone", "deeplabv3plus"]


@dataclass(frozen=True)
class NetworkSettings:
    """What a recognition network is made of.

    Attributes:
        structure: how parts and classes hang together, see `build_network`.
        architecture: timm network; for `deeplabv3plus` the name of its encoder.
        model_args: further arguments of the timm network.
        segmenter: what segments the parts of a two-stage structure.
        num_supervised: on how many of the last blocks parts are supervised (SVn).
        top_down: whether the bypass has its top-down path.
        image_size: side of the square input in pixels, for the exported configuration.
        mean: of each channel, in [0, 1] pixel units, by which images are normalised; None for what
            the initial weights, or else timm's configuration of the architecture, say.
        std: likewise.
    """

    structure: Structure = "bypass"
    architecture: str = "resnet50"
    model_args: dict[str, Any] | None = None
    segmenter: Segmenter = "backbone"
    num_supervised: int = 3
    top_down: bool = True
    image_size: int = 224
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    def build(self, mask_classes: Tensor) -> PartNetwork:
        """The network with fresh weights.

        Args:
            mask_classes: see `build_network`.

        Raises:
            UserError: if timm has no such network or it does not fit the structure.
        """
        return build_network(
            self.structure,
            self.architecture,
            mask_classes,
            segmenter=self.segmenter,
            model_args=self.model_args,
            num_supervised=self.num_supervised,
            top_down=self.top_down,
            mean=self.mean,
            std=self.std,
        )


def build_network(
    structure: Structure,
    architecture: str,
    mask_classes: Tensor,
    *,
    segmenter: Segmenter = "backbone",
    model_args: Mapping[str, Any] | None = None,
    num_supervised: int = 3,
    top_down: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> PartNetwork:
    """Builds a recognition network.

    Args:
        structure: `bypass` is MPM (PartImageNet++ §4.2); `downsampled` and `bounding_box` are the
            two-stage models of Sitawarin et al. 2023; `judgment` is ROCK (Li et al. 2023).
        architecture: timm network.
        mask_classes: which mask classes occur on which object, bool `(num_objects, K + 1)`; without
            columns the network has no parts.
        segmenter: of the two-stage structures.
        model_args: further arguments of the timm network.
        num_supervised: on how many of the last blocks parts are supervised (`bypass`).
        top_down: whether the bypass has its top-down path (`bypass`).
        mean: of each channel, in [0, 1] pixel units; None for what timm's configuration says.
        std: likewise.

    Raises:
        UserError: if timm has no such network or it does not fit the structure.
    """
    num_objects, num_classes = mask_classes.shape
    if structure == "bypass":
        recogniser = Recogniser(architecture, num_objects, model_args, mean, std)
        return BypassNetwork(recogniser, num_classes, num_supervised, top_down)
    if not num_classes:
        raise UserError(f"structure '{structure}' is nothing without parts: part_loss_weight > 0")
    if structure == "judgment":
        return JudgmentNetwork(architecture, mask_classes, model_args, mean, std)
    return TwoStage(
        architecture, num_objects, num_classes, structure, segmenter, model_args, mean, std
    )
