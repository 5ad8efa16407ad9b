"""The recognition networks of the papers, by name."""

from collections.abc import Mapping
from typing import Any, Literal

from modules.networks.part_network import BypassNetwork, PartNetwork
from modules.networks.recogniser import Recogniser

Structure = Literal["bypass"]


def build_network(
    structure: Structure,
    architecture: str,
    num_objects: int,
    num_classes: int,
    *,
    model_args: Mapping[str, Any] | None = None,
    num_supervised: int = 3,
    top_down: bool = True,
) -> PartNetwork:
    """Builds a recognition network.

    Args:
        structure: `bypass` is MPM (PartImageNet++ §4.2).
        architecture: timm network.
        num_objects: number of object categories.
        num_classes: K + 1 part classes with the background; 0 for a network without parts.
        model_args: further arguments of the timm network.
        num_supervised: on how many of the last blocks parts are supervised (`bypass`).
        top_down: whether the bypass has its top-down path (`bypass`).

    Raises:
        ValueError: if timm has no such network or it does not fit the structure.
    """
    recogniser = Recogniser(architecture, num_objects, model_args)
    return BypassNetwork(recogniser, num_classes, num_supervised, top_down)
