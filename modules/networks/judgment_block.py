"""ROCK: parts are segmented, and a fixed rule judges which object they make up."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modules.losses.part_level import PartLevel
from modules.networks.part_network import PartNetwork
from modules.networks.preprocessing import input_normalisation
from modules.networks.two_stage import BackboneSegmenter


class JudgmentBlock(nn.Module):
    """Scores objects by the parts that a segmentation shows (after Li et al., TPAMI 2023).

    Each pixel votes for its most probable part. An object's score is the share of foreground
    pixels that show its parts, times the share of its parts that are seen at all. The votes are
    an argmax, so the block has no useful gradient: an attack through it sees zeros, and accuracy
    under such an attack says nothing. Threats therefore follow `JudgmentNetwork.surrogate` by
    default, or the block with `straight_through` (see `gradient_path`).

    Args:
        object_parts: bool `(num_objects, K + 1)`, the block's knowledge of objects and parts.
        min_pixels: pixels that a part needs to count as seen.
        straight_through: lets gradients pass as if the votes were the probabilities.
    """

    object_parts: Tensor

    def __init__(
        self, object_parts: Tensor, min_pixels: int = 1, straight_through: bool = False
    ) -> None:
        super().__init__()
        belongs = object_parts.float().clone()
        belongs[:, 0] = 0
        self.register_buffer("object_parts", belongs)
        self.min_pixels = min_pixels
        self.straight_through = straight_through

    def forward(self, probabilities: Tensor) -> Tensor:
        """Scores `(B, num_objects)` in [0, 1] of part probabilities `(B, K + 1, h, w)`."""
        classes = probabilities.shape[1]
        votes = nn.functional.one_hot(probabilities.argmax(1), classes).movedim(-1, 1)
        votes = votes.to(probabilities.dtype)
        counts = votes.sum((2, 3))
        if self.straight_through:
            votes = votes + probabilities - probabilities.detach()
        pixels = votes.sum((2, 3))
        foreground = pixels[:, 1:].sum(1, keepdim=True).clamp_min(1)
        share = pixels @ self.object_parts.T / foreground
        seen = (counts >= self.min_pixels).to(pixels.dtype) @ self.object_parts.T
        return share * seen / self.object_parts.sum(1).clamp_min(1)


class JudgmentNetwork(PartNetwork):
    """Part segmentation followed by the judgment block; only the segmentation is trained.

    `forward` gives the block's scores. For training, `forward_with_parts` gives instead the
    differentiable class evidence of the soft-max maps, the log of the probability that an
    object's parts get on average, and so does `surrogate`, which the attack of training follows.

    Args:
        architecture: timm network without its classifier.
        object_parts: bool `(num_objects, K + 1)`.
        model_args: further arguments of the timm network.
        mean: of each channel, in [0, 1] pixel units; None for what timm's configuration says.
        std: likewise.
    """

    def __init__(
        self,
        architecture: str,
        object_parts: Tensor,
        model_args: Mapping[str, Any] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.segmenter = BackboneSegmenter(architecture, object_parts.shape[1], model_args)
        self.normalise = input_normalisation(self.segmenter.body, mean, std)
        self.judgment = JudgmentBlock(object_parts)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of the judgment block; see `PartNetwork`."""
        level = self.segmenter(self.normalise(images))
        return self.judgment(level.logits().float().softmax(1))

    def forward_with_parts(self, images: Tensor) -> tuple[Tensor, list[PartLevel]]:
        """Differentiable class evidence and the part level; see `PartNetwork`."""
        level = self.segmenter(self.normalise(images))
        mean = level.logits().float().softmax(1).mean((2, 3))
        evidence = mean @ self.judgment.object_parts.T
        return torch.log(evidence.clamp_min(1e-6)), [level]

    def surrogate(self, images: Tensor) -> Tensor:
        """The class evidence of `forward_with_parts`, as the scores have no gradient."""
        return self.forward_with_parts(images)[0]

    def backbone(self) -> nn.Module:
        """The segmenter's timm network."""
        return self.segmenter.body
