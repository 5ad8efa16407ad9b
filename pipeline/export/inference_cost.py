"""A counter of floating point operations: torch's, of convolutions and matrix products."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from modules.weights.classifier_folder import load_classifier


class _NoModules(nullcontext[None]):
    """Stands in for torch's module tracker.

    Its hooks bear neither `autograd.grad` nor a module without gradients of which a parameter
    wants one.
    """

    parents = frozenset({"Global"})


def _convolution_backward(
    grad_out_shape: list[int],
    x_shape: list[int],
    w_shape: list[int],
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    output_mask: list[bool],
    **_: Any,
) -> int:
    """Each gradient, of input and weight, has the products of the convolution itself.

    torch's own formula leaves the groups out for the weight: of a depthwise convolution it counts
    as many times too much as there are channels.
    """
    once: int = conv_flop_count(x_shape, w_shape, grad_out_shape, transposed=transposed)
    return once * sum(output_mask[:2])


def flop_counter() -> FlopCounterMode:
    """A context whose `get_total_flops()` tells what ran in it; a multiply-add counts as 2."""
    formulas = {torch.ops.aten.convolution_backward: _convolution_backward}
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    return counter


def inference_cost(model: Path, image_size: int) -> tuple[int, int]:
    """Parameters of a deployed model, and its floating point operations for one image.

    Args:
        model: run folder with `export/`.
        image_size: side of the image, pixels.

    Raises:
        MissingInputError: if there is no such model.
        UserError: if its weights are wrong.
    """
    return network_cost(load_classifier(model), image_size)


def network_cost(network: nn.Module, image_size: int) -> tuple[int, int]:
    """Parameters of a network on the CPU, and its floating point operations for one image.

    Args:
        network: classifier of pixels in [0, 1], in eval mode.
        image_size: side of the image, pixels.
    """
    with flop_counter() as counter, torch.no_grad():
        network(torch.zeros(1, 3, image_size, image_size))
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops()
