import pytest
import torch
from timm import create_model
from timm.optim import param_groups_layer_decay
from torch import nn

from modules.networks.timm_fpn import TimmFPN
from modules.optimisation.parameter_groups import (
    layer_scales,
    norm_parameters,
    parameter_groups,
    vectors,
)


class Detector(nn.Module):
    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.backbone = TimmFPN(backbone, 16)

    def layer_ids(self) -> dict[str, int]:
        return {f"backbone.{name}": layer for name, layer in self.backbone.layer_ids().items()}


def scales(groups: list[dict[str, object]], module: nn.Module, prefix: str) -> dict[str, float]:
    names = {parameter: name for name, parameter in module.named_parameters()}
    found = {names[p]: g.get("lr_scale", 1.0) for g in groups for p in g["params"]}
    return {n.removeprefix(prefix): s for n, s in found.items() if n.startswith(prefix)}


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "resnet18", "convnext_atto"])
def test_scales_are_those_of_timm_for_the_whole_network(name: str) -> None:
    detector, whole = Detector(name), create_model(name, num_classes=2)
    ours = scales(
        parameter_groups(detector.named_parameters(), layer_scales(detector, 0.7)),
        detector,
        "backbone.body.",
    )
    timms = scales(param_groups_layer_decay(whole, layer_decay=0.7), whole, "")
    depth = max(detector.layer_ids().values())
    assert ours
    # timm's head, which a detector lacks, is one layer after the last block or in that layer
    head = max(timms[n] for n in timms if n not in ours and not n.startswith("layers"))
    assert head == 1
    assert min(ours.values()) == pytest.approx(0.7 ** (depth + 1))
    assert max(ours.values()) == pytest.approx(0.7)
    shared = [n for n in ours if n in timms]
    if name.startswith("swin"):
        shared, renamed = [], {n.replace("layers_", "layers."): n for n in ours}
        assert len([n for n in timms if n in renamed]) == len(renamed)
        pairs = [(ours[renamed[n]], timms[n]) for n in timms if n in renamed]
    elif name.startswith("convnext"):
        renamed = {n.replace("stages_", "stages.").replace("stem_", "stem."): n for n in ours}
        pairs = [(ours[renamed[n]], timms[n]) for n in timms if n in renamed]
    else:
        pairs = [(ours[n], timms[n]) for n in shared]
    assert len(pairs) == len(ours)
    ratios = {round(one / other, 6) for one, other in pairs}
    assert len(ratios) == 1


def test_every_parameter_once_and_norms_without_decay() -> None:
    detector = Detector("swin_tiny_patch4_window7_224")
    frozen = next(detector.backbone.fpn.parameters()).requires_grad_(False)
    groups = parameter_groups(
        detector.named_parameters(), layer_scales(detector, 0.9), vectors(detector)
    )
    listed = [p for g in groups for p in g["params"]]
    trained = {p for p in detector.parameters() if p.requires_grad}
    assert len(listed) == len(set(listed))
    assert set(listed) == trained
    assert frozen not in trained
    names = {parameter: name for name, parameter in detector.named_parameters()}
    for group in groups:
        free = {p.ndim == 1 or "position" in names[p] for p in group["params"]}
        assert free == {group.get("weight_decay") == 0}
    optimizer = torch.optim.AdamW(groups, lr=1.0, weight_decay=0.05)
    assert {g["weight_decay"] for g in optimizer.param_groups} == {0.0, 0.05}


def test_wrong_factor_and_network_without_layers() -> None:
    with pytest.raises(ValueError, match=r"layer_decay 1\.5"):
        layer_scales(nn.Linear(1, 1), 1.5)
    with pytest.raises(ValueError, match="tells no layers"):
        layer_scales(nn.Linear(1, 1), 0.5)
    assert layer_scales(nn.Linear(1, 1), 1.0) == {}


def test_vectors_and_norm_parameters() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Sequential(nn.LayerNorm(2)))
    assert vectors(network) == {"0.bias", "1.weight", "1.bias", "2.0.weight", "2.0.bias"}
    assert norm_parameters(network) == {"1.weight", "1.bias", "2.0.weight", "2.0.bias"}
    assert norm_parameters(nn.LayerNorm(2)) == {"weight", "bias"}
