"""Cells of the feature maps lie about the pixels where part labels and RoIAlign take them."""

from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from modules.networks.recogniser import Recogniser
from modules.networks.timm_fpn import TimmFPN
from tests.pipeline.commands import PROJECT

SIDE = 256
TF = ("tf_efficientnet_lite0", {})


def settings(recipe: str) -> dict[str, Any]:
    """What a recipe gives its module."""
    given = yaml.safe_load((PROJECT / "configs" / f"{recipe}.yaml").read_text())
    found: dict[str, Any] = given["model"]["init_args"]
    return found


def classifier(recipe: str) -> tuple[str, dict[str, Any]]:
    """Architecture and arguments of a recipe of stage 3."""
    network = settings(f"stage3_mpm/{recipe}")["network"]
    return network["architecture"], network.get("model_args", {})


def offset(features: Tensor, images: Tensor) -> float:
    """How far the middle cell's field of view lies after the cell's first pixel, in cells.

    The field of view is where the squares of gradients have their centre of mass.
    """
    cell, stride = features.shape[-1] // 2, images.shape[-1] // features.shape[-1]
    generator = torch.Generator().manual_seed(0)
    mass = torch.zeros_like(images)
    for _ in range(4):
        random = torch.randn(features.shape[:2], generator=generator)
        value = (features[:, :, cell, cell] * random).sum()
        (gradient,) = torch.autograd.grad(value, images, retain_graph=True)
        mass += gradient**2
    rows, columns = mass.sum((0, 1, 3)), mass.sum((0, 1, 2))
    pixels = torch.arange(images.shape[-1])
    found = sum((line @ pixels.float()) / line.sum() for line in (rows, columns)) / 2
    return float(found - cell * stride) / stride


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (classifier("resnet50_gelu_at"), 0.0),
        (classifier("small"), 0.0),
        (classifier("lite0"), 0.0),
        (classifier("lite0_fast"), 0.0),
        (TF, 1.0),  # what the two before would have without their arguments
        (classifier("convnext_tiny"), 0.5),
    ],
    ids=["resnet50", "small", "lite0", "lite0_fast", "tensorflow", "patches"],
)
def test_where_the_cells_of_recognisers_lie(
    network: tuple[str, dict[str, Any]], expected: float
) -> None:
    torch.manual_seed(0)
    architecture, arguments = network
    recogniser = Recogniser(architecture, 10, arguments).eval()
    images = torch.rand(2, 3, SIDE, SIDE, requires_grad=True)
    _, maps = recogniser.forward_with_features(images, 3)
    finest = maps[0]  # where part labels are taken
    assert finest.shape[-1] == SIDE // 8
    assert offset(finest, images) == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize("recipe", ["lite0", "small"])
def test_where_the_cells_of_segmenters_lie(recipe: str) -> None:
    """torchvision's RoIAlign takes cell i of a map of stride s for the pixel s * i."""
    torch.manual_seed(0)
    given = settings(f"stage1_segmenter/{recipe}")
    arguments = given.get("backbone_args")
    pyramid = TimmFPN(given["backbone"], 16, backbone_args=arguments).eval()
    images = torch.rand(2, 3, SIDE, SIDE, requires_grad=True)
    for level in pyramid.body(images)[:3]:
        assert offset(level, images) == pytest.approx(0, abs=0.2)
