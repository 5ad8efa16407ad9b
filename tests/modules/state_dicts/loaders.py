"""The loaders of weights, on one tiny network."""

from collections.abc import Callable
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from modules.networks.preprocessing import ImageFormat
from modules.networks.structures import build_network
from modules.weights.classifier_export import export_timm
from modules.weights.classifier_folder import load_classifier
from modules.weights.classifier_sources import open_classifier
from modules.weights.initial_weights import load_initial_weights
from tests.modules.weights.released_networks import trained

TINY = {"channels": [8, 8, 16, 16], "stem_width": 8}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def plain(seed: int = 0, classes: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return trained(timm.create_model("resnet18", num_classes=classes, **TINY), seed).eval()


def by_class(path: Path) -> nn.Module:
    options = {"model_name": "resnet18", "num_classes": 4, **TINY}
    source = {"class_path": "timm.create_model", "init_args": options}
    return open_classifier(source | {"weights": path, "mean": MEAN, "std": STD})[0]


def initial(path: Path) -> nn.Module:
    network = build_network("bypass", "resnet18", torch.ones(4, 0).bool(), model_args=TINY)
    load_initial_weights(network, path)
    return network.eval()


def described(path: Path) -> nn.Module:
    """A file beside the description of its network."""
    export_timm(
        plain(5),
        path.parent / "export",
        architecture="resnet18",
        model_args=TINY,
        num_classes=4,
        mean=MEAN,
        std=STD,
        images=ImageFormat(32),
    )
    (path.parent / "config.json").write_text((path.parent / "export/config.json").read_text())
    return load_classifier(path)


LOADERS: list[Callable[[Path], nn.Module]] = [initial, by_class, described]


def prefixed(prefix: str, network: nn.Module) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in network.state_dict().items()}
