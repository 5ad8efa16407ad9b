"""What stage 3 trains: a classifier that parts can supervise."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from modules.losses.part_level import PartLevel
from modules.networks.part_bypass import PartBypass
from modules.networks.recogniser import Recogniser
from modules.networks.simple_pyramid import SimplePyramid


class PartNetwork(nn.Module, ABC):
    """A classifier of pixels in [0, 1] that also predicts parts while it is trained."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Class logits `(B, num_objects)` of images `(B, 3, H, W)` in [0, 1]."""

    @abstractmethod
    def forward_with_parts(self, images: Tensor) -> tuple[Tensor, list[PartLevel]]:
        """Class logits and the supervised part levels, fine to coarse; no level without parts.

        Args:
            images: `(B, 3, H, W)` in [0, 1].
        """

    def surrogate(self, images: Tensor) -> Tensor:
        """Class logits that gradients pass, for attacks; where possible those of `forward`."""
        return self(images)

    @abstractmethod
    def backbone(self) -> nn.Module:
        """The timm network that starts from a clean checkpoint."""

    def deployed(self) -> Recogniser | None:
        """The plain recogniser that is left at inference; None if the parts stay in."""
        return None

    def freeze_backbone(self) -> None:
        """Lets only what is new be trained: everything but the backbone, and its classifier."""
        self.backbone().requires_grad_(False)
        classifier = getattr(self.backbone(), "get_classifier", nn.Identity)()
        classifier.requires_grad_(True)


class BypassNetwork(PartNetwork):
    """MPM: a plain recogniser and, in training, bypass layers on its last blocks.

    PartImageNet++ §4.2. `forward` never computes the bypass. A plain vision transformer gets its
    levels from a `SimplePyramid`.

    Args:
        recogniser: the network that is deployed.
        num_classes: K + 1 part classes with the background; 0 leaves the bypass out.
        num_supervised: on how many of the last blocks parts are supervised (SVn).
        top_down: whether the bypass has its top-down path.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        num_classes: int,
        num_supervised: int = 3,
        top_down: bool = True,
    ) -> None:
        super().__init__()
        self.recogniser = recogniser
        self.num_supervised = num_supervised
        self.bypass: PartBypass | None = None
        self.pyramid: SimplePyramid | None = None
        if num_classes:
            if recogniser.single_scale:
                self.pyramid = SimplePyramid(recogniser.channels(1)[0], num_supervised)
                channels = self.pyramid.channels
            else:
                channels = recogniser.channels(num_supervised)
            self.bypass = PartBypass(channels, num_classes - 1, top_down)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits; see `PartNetwork`."""
        return self.recogniser(images)

    def forward_with_parts(self, images: Tensor) -> tuple[Tensor, list[PartLevel]]:
        """Class logits and part levels; see `PartNetwork`."""
        if self.bypass is None:
            return self.recogniser(images), []
        blocks = 1 if self.pyramid else self.num_supervised
        logits, features = self.recogniser.forward_with_features(images, blocks)
        if self.pyramid:
            features = self.pyramid(features[0])
        return logits, self.bypass(features)

    def deployed(self) -> Recogniser:
        """The recogniser, without the bypass."""
        return self.recogniser

    def backbone(self) -> nn.Module:
        """The recogniser's timm network."""
        return self.recogniser.network
