"""How the images of a timm network are made: normalisation, crop and interpolation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import timm
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, resolve_data_config
from torch import nn

from datamodules.files.errors import UserError
from modules.networks.normalisation import Normalise

CROP, INTERPOLATION = 0.875, "bicubic"  # ours, and of folders that do not say


@dataclass(frozen=True)
class ImageFormat:
    """The squares that a network was made for.

    Attributes:
        size: side of the square, pixels.
        crop_pct: share of the resized shorter side that the centre crop keeps.
        interpolation: of the resizing: `bicubic`, `bilinear`, ...
    """

    size: int
    crop_pct: float = CROP
    interpolation: str = INTERPOLATION

    @property
    def resize(self) -> int:
        """Length of the shorter side before the crop, pixels; as timm rounds it."""
        return math.floor(self.size / self.crop_pct)

    def __str__(self) -> str:
        return f"{self.size} of {self.resize} pixels, {self.interpolation}"


@dataclass(frozen=True)
class Preprocessing:
    """What lies between an image file and a network.

    Attributes:
        mean: of each channel, in [0, 1] pixel units.
        std: of each channel, in [0, 1] pixel units.
        images: what it was made for.
        source: where mean and std come from, for people.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    images: ImageFormat
    source: str


def preprocessing_of(network: nn.Module) -> Preprocessing:
    """What timm's configuration says of a network, down to the tag of its weights.

    Args:
        network: network of timm, or one that wraps it; any other gets ImageNet's mean and std.
    """
    configured = (m for m in network.modules() if getattr(m, "pretrained_cfg", None))
    found: Any = next(configured, None)
    config: Mapping[str, Any] = {} if found is None else found.pretrained_cfg
    data = resolve_data_config(pretrained_cfg={"architecture": "", **config})
    name = ".".join(filter(None, (config.get("architecture"), config.get("tag"))))
    source = f"timm's configuration of {name}"
    if found is None or "mean" not in config or not name:
        source = "ImageNet's, as timm has no configuration of this network"
    images = ImageFormat(data["input_size"][1], data["crop_pct"], data["interpolation"])
    return Preprocessing(tuple(data["mean"]), tuple(data["std"]), images, source)


def other_tags(architecture: str, mean: Sequence[float], std: Sequence[float]) -> str:
    """Names the weights that timm knows of an architecture and that are normalised otherwise.

    Args:
        architecture: name in timm; one with a tag has no others.
        mean: that is used, in [0, 1] pixel units.
        std: likewise.

    Returns:
        A clause for the line that says what is used; empty where all agree.
    """
    if "." in architecture:
        return ""
    used = tuple(mean), tuple(std)
    configs = {
        name: timm.get_pretrained_cfg(name) for name in timm.list_pretrained(f"{architecture}.*")
    }
    others = [
        name for name, config in configs.items() if config and (config.mean, config.std) != used
    ]
    if not others:
        return ""
    return (
        f" (weights of {', '.join(others)} are normalised otherwise: if these are such, name the "
        "architecture with its tag)"
    )


def input_normalisation(
    network: nn.Module, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Normalise:
    """The layer that a network's images pass: as given, else as timm's configuration says.

    Args:
        network: network of timm, or one that wraps it.
        mean: of each channel, in [0, 1] pixel units; None for timm's.
        std: likewise; both or none are given.

    Raises:
        UserError: if only one is given, or they are no normalisation of three channels.
    """
    if (mean is None) != (std is None):
        raise UserError("mean and std of the normalisation go together: give both or none")
    if mean is not None and std is not None:
        return Normalise(mean, std, "as given")
    known = preprocessing_of(network)
    return Normalise(known.mean, known.std, known.source)


def imagenet_normalisation(source: str) -> Normalise:
    """ImageNet's mean and std, with the reason."""
    return Normalise(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, source)
