"""Import of recognisers that other codes trained, as folders that the evaluation reads."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from datamodules.files.json_files import write_json
from modules.networks.structures import NetworkSettings
from modules.weights.classifier_folder import export_network
from modules.weights.initial_weights import load_initial_weights
from modules.weights.part_network_folder import set_normalisation
from pipeline.runs.manifest import sha256

ORIGIN = "import.json"


@dataclass(frozen=True)
class ForeignModel:
    """How a checkpoint of another code is to be read.

    Attributes:
        architecture: timm network.
        model_args: its further arguments, such as `{"act_layer": "gelu"}`.
        structure: `bypass` for a plain network, also a released MPM; or a two-stage one.
        num_classes: object categories.
        num_part_classes: K + 1 of a two-stage network.
        image_size: side of the square input, pixels.
        mean: mean of a normalisation outside the file; None for what it or ImageNet has.
        std: standard deviation, likewise.
    """

    architecture: str
    model_args: dict[str, Any] = field(default_factory=dict)
    structure: Literal["bypass", "downsampled"] = "bypass"
    num_classes: int = 1000
    num_part_classes: int = 3311
    image_size: int = 224
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


def import_model(weights: Path, folder: Path, foreign: ForeignModel) -> list[str]:
    """Writes a checkpoint of another code as a folder that `load_classifier` reads.

    Args:
        weights: checkpoint or weight file.
        folder: folder to write; an existing one is replaced as a whole.
        foreign: what the file holds.

    Returns:
        What was not simply loaded, a line each.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if its tensors are not those of the network; they are listed.
    """
    parts = 0 if foreign.structure == "bypass" else foreign.num_part_classes
    # two-stage networks read parts as they come, so the order of the classes plays no role
    mask_classes = torch.ones(foreign.num_classes, parts, dtype=torch.bool)
    settings = NetworkSettings(
        structure=foreign.structure,
        architecture=foreign.architecture,
        model_args=foreign.model_args,
        image_size=foreign.image_size,
    )
    network = settings.build(mask_classes)
    notes = load_initial_weights(network, weights, trust_part_order=parts > 0)
    if foreign.mean is not None and foreign.std is not None:
        set_normalisation(network, foreign.mean, foreign.std)
    export_network(network, folder, settings, mask_classes)
    record = {"file": weights.name, "sha256": sha256(weights), "notes": notes}
    write_json(folder / ORIGIN, record)
    return notes
