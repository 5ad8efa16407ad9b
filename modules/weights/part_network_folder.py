"""Folders of trained networks that predict parts at inference, which timm cannot describe."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from datamodules.files.atomic_files import folder_written_whole
from datamodules.files.errors import UserError
from modules.networks.normalisation import Normalise
from modules.networks.part_network import PartNetwork
from modules.networks.preprocessing import ImageFormat
from modules.networks.structures import NetworkSettings
from modules.state_dicts.weight_files import load_named, load_strictly

DESCRIPTION = "part_network.json"


class DeployedPartNetwork(nn.Module):
    """A part network as a classifier of pixels in [0, 1].

    Args:
        network: the part network.
        description: what it was built from, the content of `part_network.json`.
    """

    def __init__(self, network: PartNetwork, description: Mapping[str, Any]) -> None:
        super().__init__()
        self.network = network
        self.description = dict(description)

    @property
    def num_classes(self) -> int:
        """Number of object categories."""
        return int(self.description["num_objects"])

    def forward(self, images: Tensor) -> Tensor:
        """Logits, or the judgment block's scores, `(B, num_classes)` of images `(B, 3, H, W)`."""
        return self.network(images)

    def surrogate(self, images: Tensor) -> Tensor:
        """Logits that gradients pass, for attacks; see `PartNetwork.surrogate`."""
        return self.network.surrogate(images)


def export_part_network(
    network: PartNetwork,
    folder: Path,
    settings: NetworkSettings,
    mask_classes: Tensor,
    images: ImageFormat,
) -> None:
    """Writes `part_network.json` and `model.safetensors`, from which the network is rebuilt.

    The weights go through a network built anew from the description, so a folder that is written
    can be read. An existing folder is replaced as a whole.

    Args:
        network: network on any device, in any memory format.
        folder: folder to write.
        settings: what it was built from.
        mask_classes: bool `(num_objects, K + 1)`, which mask classes occur on which object.
        images: that it was trained for.

    Raises:
        UserError: if `network` is not what the settings build.
    """
    mean, std = find_normalisation(network).values
    description = {
        **asdict(settings),
        "image_size": images.size,
        "crop_pct": images.crop_pct,
        "interpolation": images.interpolation,
        "num_objects": mask_classes.shape[0],
        "num_part_classes": mask_classes.shape[1],
        "regions": [row.nonzero().flatten().tolist() for row in mask_classes],
        "mean": mean,
        "std": std,
    }
    write_part_network(DeployedPartNetwork(network, description), folder)


def write_part_network(deployed: DeployedPartNetwork, folder: Path) -> None:
    """Writes a part network with its description; see `export_part_network`.

    Raises:
        UserError: if the network is not what the description builds.
    """
    text = json.dumps(deployed.description, indent=1)
    # safetensors takes no channels-last tensors
    state = {
        name: value.detach().cpu().contiguous()
        for name, value in deployed.network.state_dict().items()
    }
    structure = deployed.description["structure"]
    rebuilt = _build(json.loads(text)).network
    load_strictly(rebuilt, state, f"the network exported as {structure}")
    with folder_written_whole(folder) as partial:
        (partial / DESCRIPTION).write_text(text)
        save_file(state, partial / "model.safetensors")
        shutil.copymode(partial / DESCRIPTION, partial / "model.safetensors")


def load_part_network(
    folder: Path, state: Mapping[str, Tensor], source: str
) -> DeployedPartNetwork:
    """Rebuilds the network of a `part_network.json` in eval mode and fills it strictly.

    Args:
        folder: folder with the description.
        state: the weights, by the names of `PartNetwork`.
        source: what they come from, for messages.

    Raises:
        UserError: if the description is damaged or the weights are not those of the network.
    """
    path = folder / DESCRIPTION
    try:
        deployed = _build(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path} describes no part network ({error}): export it anew") from error
    load_named(deployed.network, state, source)
    return deployed.eval()


def find_normalisation(network: nn.Module) -> Normalise:
    """The layer of a network that expects images in [0, 1]."""
    return next(module for module in network.modules() if isinstance(module, Normalise))


def _build(description: Mapping[str, Any]) -> DeployedPartNetwork:
    known = {field.name for field in fields(NetworkSettings)}
    shape = description["num_objects"], description["num_part_classes"]
    mask_classes = torch.zeros(shape, dtype=torch.bool)
    for row, parts in zip(mask_classes, description["regions"], strict=True):
        row[parts] = True
    options = {name: value for name, value in description.items() if name in known}
    network = NetworkSettings(**options).build(mask_classes)
    find_normalisation(network).source = DESCRIPTION
    return DeployedPartNetwork(network, description)
