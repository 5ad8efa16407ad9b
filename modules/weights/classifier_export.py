"""Trained classifiers are written as folders: timm's own where that describes them."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
from timm.models import save_for_hf
from torch import Tensor, nn

from datamodules.files.atomic_files import folder_written_whole
from modules.networks.part_network import PartNetwork
from modules.networks.preprocessing import ImageFormat
from modules.networks.structures import NetworkSettings
from modules.state_dicts.weight_files import load_strictly
from modules.weights.part_network_folder import export_part_network

STRUCTURAL = (
    "architecture",
    "classifier",
    "first_conv",
    "input_size",
    "pool_size",
    "fixed_input_size",
)


def export_network(
    network: PartNetwork,
    folder: Path,
    settings: NetworkSettings,
    mask_classes: Tensor,
    images: ImageFormat,
) -> None:
    """Writes what is left of a trained network at inference: a timm folder where that describes it.

    Args:
        network: trained network.
        folder: folder to write; an existing one is replaced as a whole.
        settings: what it was built from.
        mask_classes: bool `(num_objects, K + 1)`, which mask classes occur on which object.
        images: that it was trained for.

    Raises:
        UserError: if `network` is not what the settings build.
    """
    recogniser = network.deployed()
    if recogniser is None:
        export_part_network(network, folder, settings, mask_classes, images)
        return
    mean, std = recogniser.normalise.values
    export_timm(
        recogniser.network,
        folder,
        architecture=settings.architecture,
        model_args=settings.model_args or {},
        num_classes=mask_classes.shape[0],
        mean=mean,
        std=std,
        images=images,
    )


def export_timm(
    network: nn.Module,
    folder: Path,
    *,
    architecture: str,
    model_args: Mapping[str, Any],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    images: ImageFormat,
) -> None:
    """Writes a plain timm network as a folder of `config.json` and `model.safetensors`.

    `timm.create_model("local-dir:FOLDER", pretrained=True)` gives the same logits. The weights
    go through a network built anew from the arguments, so a folder that is written can be read.
    An existing folder is replaced as a whole.

    Args:
        network: timm network without normalisation, on any device, in any memory format.
        folder: folder to write.
        architecture: timm name of the network.
        model_args: further JSON-able arguments of `timm.create_model`, such as `act_layer`.
        num_classes: number of logits.
        mean: mean of each channel, in [0, 1] pixel units.
        std: standard deviation of each channel, in [0, 1] pixel units.
        images: that the network was trained for.

    Raises:
        UserError: if `network` is not what the arguments build.
    """
    plain = timm.create_model(
        architecture, pretrained=False, num_classes=num_classes, **dict(model_args)
    )
    # safetensors takes no channels-last tensors
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    load_strictly(plain, state, f"the network exported as {architecture}")
    # of timm's configuration what speaks of the structure; the rest is of other weights
    known: Any = plain.pretrained_cfg
    plain.pretrained_cfg = {n: v for n, v in known.items() if n in STRUCTURAL}  # type: ignore[assignment]
    size = [3, images.size, images.size]
    preprocessing = {
        "mean": list(mean),
        "std": list(std),
        "input_size": size,
        "interpolation": images.interpolation,
        "crop_pct": images.crop_pct,
        "test_input_size": size,
        "test_crop_pct": images.crop_pct,
    }
    with folder_written_whole(folder) as partial:
        save_for_hf(
            plain,
            str(partial),
            model_config={"pretrained_cfg": preprocessing},
            model_args=dict(model_args),
            safe_serialization=True,
        )
        shutil.copymode(partial / "config.json", partial / "model.safetensors")
