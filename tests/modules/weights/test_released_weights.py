from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from modules.networks.part_network import PartNetwork
from modules.networks.structures import Structure, build_network
from modules.weights.initial_weights import load_initial_weights
from tests.modules.weights.released_networks import ReleasedMPM, ReleasedTwoStage, trained

TINY = {"channels": (4, 8, 16, 32), "stem_width": 8}
GELU = {"act_layer": "gelu"}
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def build(
    structure: Structure, objects: int, seg_classes: int, tiny: bool = True, **kwargs: int
) -> PartNetwork:
    regions = torch.ones(objects, seg_classes, dtype=torch.bool)
    model_args = {**GELU, **(TINY if tiny else {})}
    return build_network(structure, "resnet50", regions, model_args=model_args, **kwargs).eval()


def images() -> Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def normalised(pixels: Tensor) -> Tensor:
    return (pixels - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)


def save(network: nn.Module, path: Path) -> Path:
    other = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    torch.save({"epoch": 79, "state_dict": other, "state_dict_ema": network.state_dict()}, path)
    return path


@torch.no_grad()
def assert_equal(network: PartNetwork, released: nn.Module) -> None:
    logits, levels = network.forward_with_parts(images())
    wanted, parts = released(normalised(images()))
    torch.testing.assert_close(logits, wanted)
    torch.testing.assert_close(network(images()), wanted)
    assert len(levels) == len(parts)
    for level, part in zip(levels, parts, strict=True):
        torch.testing.assert_close(level.logits(), part)


def test_released_mpm_at_full_size(tmp_path: Path) -> None:
    released = trained(ReleasedMPM(1000, 3311))
    network = build("bypass", 1000, 3311, tiny=False)
    path = save(released, tmp_path / "mpm.pth.tar")
    assert load_initial_weights(network, path, trust_part_order=True) == []
    assert_equal(network, released)


def test_released_parts_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    released = trained(ReleasedMPM(4, 6, **TINY))
    network = build("bypass", 4, 6)
    before = [p.clone() for p in network.bypass.parameters()]
    path = save(released, tmp_path / "mpm.pth.tar")
    notes = load_initial_weights(network, path)
    assert any("part order" in note for note in notes)
    assert all(torch.equal(a, b) for a, b in zip(before, network.bypass.parameters(), strict=True))
    with torch.no_grad():
        torch.testing.assert_close(network(images()), released(normalised(images()))[0])
    with pytest.raises(ValueError, match=r"bypass\.heads\.0.*\(6, .*instead of \(7, "):
        load_initial_weights(build("bypass", 4, 7), path, trust_part_order=True)


def test_released_mpm_into_fewer_levels_takes_the_coarse_ones(tmp_path: Path) -> None:
    released = trained(ReleasedMPM(4, 6, **TINY))
    path = save(released, tmp_path / "mpm.pth.tar")
    network = build("bypass", 4, 6, num_supervised=2)
    notes = load_initial_weights(network, path, trust_part_order=True)
    assert any("bypass.laterals.-1.0.weight" in note for note in notes)
    with torch.no_grad():
        levels = network.forward_with_parts(images())[1]
        parts = released(normalised(images()))[1]
    for level, part in zip(levels, parts[1:], strict=True):
        torch.testing.assert_close(level.logits(), part)


def test_released_vanilla(tmp_path: Path) -> None:
    network = build("bypass", 4, 0)
    other = trained(build("bypass", 4, 0), seed=3)
    path = save(other.backbone(), tmp_path / "vanilla.pth.tar")
    assert load_initial_weights(network, path) == []
    with torch.no_grad():
        assert torch.equal(network(images()), other(images()))


def test_released_two_stage(tmp_path: Path) -> None:
    released = trained(ReleasedTwoStage(4, 6, **TINY))
    network = build("downsampled", 4, 6)
    path = save(released, tmp_path / "two_stage.pth.tar")
    assert load_initial_weights(network, path, trust_part_order=True) == []
    assert_equal(network, released)


def count(*networks: nn.Module) -> int:
    return sum(p.numel() for network in networks for p in network.parameters())


def test_parameters_are_those_counted() -> None:
    with torch.device("meta"):
        mpm = build("bypass", 1000, 3309, tiny=False)
        two_stage = build("downsampled", 1000, 3309, tiny=False)
        regions = torch.ones(200, 0, dtype=torch.bool)
        resnext = build_network("bypass", "resnext50_32x4d", regions)
    assert count(mpm.bypass) == 4_521_728
    assert count(mpm.deployed()) == 25_557_032
    assert count(two_stage) == 60_519_976
    assert round(count(resnext) / 1e6, 2) == 23.39
