import argparse
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from modules.mpm import MPM
from modules.networks.part_network import PartNetwork
from modules.networks.preprocessing import ImageFormat
from modules.networks.structures import NetworkSettings, Structure, build_network
from modules.weights.classifier_export import export_timm
from modules.weights.initial_weights import load_initial_weights
from modules.weights.part_network_folder import find_normalisation
from tests.modules.weights.released_networks import trained

TINY = {"channels": [8, 8, 16, 16], "stem_width": 8, "act_layer": "gelu"}
OBJECT_PARTS = torch.ones(4, 6, dtype=torch.bool)


def build(structure: Structure = "bypass", seg_classes: int = 0, objects: int = 4) -> PartNetwork:
    regions = torch.ones(objects, seg_classes, dtype=torch.bool)
    return build_network(structure, "resnet18", regions, model_args=TINY).eval()


def plain(seed: int = 0, classes: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return trained(timm.create_model("resnet18", num_classes=classes, **TINY), seed)


def mpm(structure: Structure = "bypass", **kwargs: Any) -> MPM:
    return MPM(OBJECT_PARTS, NetworkSettings(structure, "resnet18", TINY, image_size=32), **kwargs)


def images() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def prefixed(prefix: str, network: nn.Module) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in network.state_dict().items()}


class InputNormalize(nn.Module):
    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("new_mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("new_std", torch.tensor(std)[:, None, None])


class MeanStd(nn.Module):
    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
OTHER = [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]


def attacker_model(network: nn.Module) -> nn.Module:
    """The module tree that the `robustness` library saves."""
    model = nn.Module()
    model.normalizer = InputNormalize(*OTHER)
    model.model = network
    model.attacker = nn.Module()
    model.attacker.normalize = InputNormalize(*OTHER)
    model.attacker.model = network
    return model


WRAPPINGS = {
    "bare": lambda n: n.state_dict(),
    "module": lambda n: {"state_dict": prefixed("module.", n), "epoch": 3},
    "model": lambda n: {"model_state_dict": prefixed("model.", n)},
    "module.model": lambda n: {"model": prefixed("module.model.", n), "best": np.float64(0.5)},
    "compiled": lambda n: {"net": prefixed("_orig_mod.", n)},
    "ema first": lambda n: {"state_dict": prefixed("", plain(9)), "ema": n.state_dict()},
    "command line": lambda n: {"state_dict": n.state_dict(), "args": argparse.Namespace(lr=0.1)},
    "no counters": lambda n: OrderedDict(
        (k, v) for k, v in n.state_dict().items() if "num_batches" not in k
    ),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_usual_wrappings_with_normalisation_outside(wrapping: str, tmp_path: Path) -> None:
    source, network = plain(), build()
    torch.save(WRAPPINGS[wrapping](source), tmp_path / "robust.pt")
    load_initial_weights(network, tmp_path / "robust.pt")
    with torch.no_grad():
        assert torch.equal(network(images()), source(MeanStd(*IMAGENET)(images())))


def test_normalisation_inside_is_taken_over(tmp_path: Path) -> None:
    source = plain()
    wanted = nn.Sequential(MeanStd(*OTHER), source)
    named = nn.Sequential(OrderedDict(normalize=MeanStd(*OTHER), model=source))
    attacked = {"model": prefixed("module.", attacker_model(source)), "epoch": 1}
    for content in (wanted.state_dict(), named.state_dict(), attacked):
        torch.save(content, tmp_path / "robust.pt")
        network = build()
        notes = load_initial_weights(network, tmp_path / "robust.pt")
        layer = find_normalisation(network)
        assert layer.values == ([0.5, 0.4, 0.3], [0.2, 0.3, 0.25]), layer
        assert layer.source == f"a layer in {tmp_path / 'robust.pt'}"
        with torch.no_grad():
            torch.testing.assert_close(network(images()), wanted(images()))
    assert any("twice" in note for note in notes)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "robust.pt"
    state = prefixed("module.model.", plain())

    def refused(content: Any, match: str) -> None:
        torch.save(content, path)
        with pytest.raises(ValueError, match=match):
            load_initial_weights(build(), path)

    surplus = {"module.model.extra.bias": torch.zeros(1), "other.bias": torch.zeros(2)}
    refused(state | surplus, r"leftover: \S*extra\.bias, \S*other\.bias$")
    refused({k: v for k, v in state.items() if "layer3.0.conv1" not in k}, "missing: .*layer3.0")
    refused(state | prefixed("module.attacker.model.", plain(5)), "two different networks")
    units = {"module.mean": torch.tensor([123.0, 116, 103]), "module.std": torch.ones(3)}
    refused(state | units, r"not of pixels in \[0, 1\]")
    refused({"state_dict": 3}, "holds no state dict")
    refused({"state_dict": state, "model": nn.Linear(1, 1)}, r"holds torch\.nn\.\S+Linear, an obj")


def test_old_file_of_another_number_of_classes(tmp_path: Path) -> None:
    source, network = plain(classes=7), build()
    torch.save(source.state_dict(), tmp_path / "clean.pt")
    with pytest.raises(ValueError, match=r"fc.weight \(7, 16\) instead of \(4, 16\).*fresh_class"):
        load_initial_weights(network, tmp_path / "clean.pt")
    before = network.backbone().fc.weight.clone()
    notes = load_initial_weights(network, tmp_path / "clean.pt", fresh_classifier=True)
    assert "the classifier is fresh" in notes[0]
    assert torch.equal(network.backbone().fc.weight, before)
    assert torch.equal(network.backbone().conv1.weight, source.conv1.weight)


@pytest.mark.parametrize("structure", ["downsampled", "bounding_box", "judgment"])
def test_two_stage_takes_the_backbone_without_its_classifier(
    structure: Structure, tmp_path: Path
) -> None:
    source, network = plain(classes=9), build(structure, 6)
    torch.save(source.state_dict(), tmp_path / "clean.pt")
    notes = load_initial_weights(network, tmp_path / "clean.pt")
    assert notes[0].startswith("left out fc.weight, fc.bias")
    assert torch.equal(network.backbone().layer4[1].conv2.weight, source.layer4[1].conv2.weight)


@pytest.mark.parametrize("structure", ["bypass", "downsampled", "judgment"])
def test_own_checkpoint_loads_complete(structure: Structure, tmp_path: Path) -> None:
    first = mpm(structure)
    trained(first)
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": first.state_dict(), "pytorch-lightning_version": "2.6.6"}, path)
    for weights in (path, tmp_path / "run"):
        second = mpm(structure, weights=weights)
        assert first.state_dict().keys() == second.state_dict().keys()
        for name, value in second.state_dict().items():
            assert torch.equal(value, first.state_dict()[name]), name
    others = torch.ones(4, 9, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"wrong shape: .*instead of"):
        MPM(others, NetworkSettings(structure, "resnet18", TINY), weights=path)


def test_own_checkpoint_without_parts_starts_a_network_with_parts(tmp_path: Path) -> None:
    first = mpm(part_loss_weight=0.0)
    torch.save({"state_dict": first.state_dict()}, tmp_path / "vanilla.ckpt")
    second = mpm(weights=tmp_path / "vanilla.ckpt")
    assert torch.equal(
        second.network.backbone().conv1.weight, first.network.backbone().conv1.weight
    )
    torch.save({"state_dict": second.state_dict()}, tmp_path / "mpm.ckpt")
    with pytest.raises(ValueError, match=r"leftover: bypass\."):
        mpm(part_loss_weight=0.0, weights=tmp_path / "mpm.ckpt")


def test_normalisation_of_a_timm_folder_is_taken_over(tmp_path: Path) -> None:
    source = plain()
    export_timm(
        source,
        tmp_path / "timm",
        architecture="resnet18",
        model_args=TINY,
        num_classes=4,
        mean=OTHER[0],
        std=OTHER[1],
        images=ImageFormat(32),
    )
    assert json.loads((tmp_path / "timm" / "config.json").read_text())["architecture"] == "resnet18"
    network = build()
    load_initial_weights(network, tmp_path / "timm")
    with torch.no_grad():
        torch.testing.assert_close(network(images()), source(MeanStd(*OTHER)(images())))
