"""Import of recognisers that other codes trained, as folders that the evaluation reads."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from datamodules.files.json_files import write_json
from modules.networks.preprocessing import other_tags, preprocessing_of
from modules.networks.structures import NetworkSettings
from modules.weights.classifier_export import export_network
from modules.weights.initial_weights import load_initial_weights
from modules.weights.named_models import ORIGIN
from modules.weights.part_network_folder import find_normalisation
from pipeline.runs.manifest import sha256


@dataclass(frozen=True)
class ForeignModel:
    """How a checkpoint of another code is to be read.

    Attributes:
        architecture: timm network.
        model_args: its further arguments, such as `{"act_layer": "gelu"}`.
        structure: `bypass` for a plain network, also a released MPM; or a two-stage one.
        num_classes: object categories.
        num_part_classes: K + 1 of a two-stage network.
        image_size: side of the square input, pixels; None for what timm's configuration says.
        mean: of each channel, in [0, 1] pixel units; None for what the file says or, if it says
            nothing, timm's configuration of the architecture, where its tag counts.
        std: likewise.
    """

    architecture: str
    model_args: dict[str, Any] = field(default_factory=dict)
    structure: Literal["bypass", "downsampled"] = "bypass"
    num_classes: int = 1000
    num_part_classes: int = 3311
    image_size: int | None = None
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
        mean=foreign.mean,
        std=foreign.std,
    )
    network = settings.build(mask_classes)
    notes = load_initial_weights(
        network,
        weights,
        trust_part_order=parts > 0,
        keep_normalisation=foreign.mean is not None,
    )
    normalise, known = find_normalisation(network), preprocessing_of(network.backbone())
    own = normalise.source == known.source
    tags = other_tags(foreign.architecture, *normalise.values) if own else ""
    notes.append(f"{normalise}{tags}")
    images = replace(known.images, size=foreign.image_size or known.images.size)
    notes.append(f"images are {images}")
    export_network(network, folder, settings, mask_classes, images)
    record = {"file": weights.name, "sha256": sha256(weights), "notes": notes}
    write_json(folder / ORIGIN, record)
    return notes
