import pytest
import torch
from torch import nn

from pipeline.export.inference_cost import flop_counter


@pytest.mark.parametrize("groups", [1, 4, 16], ids=["full", "grouped", "depthwise"])
@pytest.mark.parametrize("transposed", [False, True], ids=["convolution", "transposed"])
def test_a_training_step_of_a_convolution_costs_three_of_its_passes(
    groups: int, transposed: bool
) -> None:
    """Forward, gradient of the input, gradient of the weight: the same multiply-adds each."""
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = kind(16, 16, 3, padding=1, groups=groups)
    images = torch.zeros(2, 16, 8, 8, requires_grad=True)
    with flop_counter() as counter:
        layer(images).sum().backward()
    once = 2 * (2 * 8 * 8) * 16 * (16 // groups) * 9
    assert counter.get_total_flops() == 3 * once
