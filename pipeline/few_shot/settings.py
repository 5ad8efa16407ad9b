"""How features are computed and classified."""

from dataclasses import dataclass
from typing import Literal

import torch

from datamodules.files.errors import UserError
from modules.networks.preprocessing import ImageFormat

Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class ProbeSettings:
    """How features are classified.

    Attributes:
        normalise: bring every feature to length 1 first.
        strength: of the linear probe, see `fit_linear_probe`.

    Raises:
        UserError: if the strength is not positive.
    """

    normalise: bool = True
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.strength < float("inf"):
            raise UserError(f"probe_strength is {self.strength}: it must be above 0")


@dataclass(frozen=True)
class ExtractionSettings:
    """How features are computed; none but size and margin has an influence on them.

    Attributes:
        image_size: side of the squares, pixels; None for what the model was made for.
        margin: around boxes, as a share of their longer side.
        batch_size: images that go through the network at once.
        workers: processes that read images; None takes one a core.
        device: to compute on; `auto` takes a GPU where there is one.

    Raises:
        UserError: if a number is out of its range.
    """

    image_size: int | None = None
    margin: float = 0.0
    batch_size: int = 64
    workers: int | None = None
    device: Device = "auto"

    def __post_init__(self) -> None:
        if self.image_size is not None and self.image_size < 1:
            raise UserError(f"image_size is {self.image_size}: give 1 pixel or more")
        if not 0 <= self.margin < float("inf"):
            raise UserError(f"margin is {self.margin}: it is a share of the box, 0 or more")
        if self.batch_size < 1 or (self.workers or 0) < 0:
            raise UserError(
                f"batch_size={self.batch_size} must be 1 or more, workers={self.workers} 0 or more"
            )
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("device is cuda, which this machine has not: leave it out")

    def squares(self, known: ImageFormat | None) -> ImageFormat:
        """The squares that the network gets."""
        about = known or ImageFormat(224)
        interpolation = "bilinear" if about.interpolation == "bilinear" else "bicubic"
        return ImageFormat(self.image_size or about.size, about.crop_pct, interpolation)

    def place(self) -> torch.device:
        """The device."""
        if self.device != "auto":
            return torch.device(self.device)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
