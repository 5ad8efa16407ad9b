"""What checks of correctness share: float32 that is float32, and deviations."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def exact_products() -> Iterator[None]:
    """Products of float32 without TF32, which has ten bits of mantissa."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def deviation(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Norm of the differences over that of what is wanted, of all tensors together."""
    pairs = [
        (one.detach().cpu().double(), other.detach().cpu().double())
        for one, other in zip(found, wanted, strict=True)
    ]
    difference = sum((one - other).square().sum() for one, other in pairs)
    return float((difference / sum(other.square().sum() for _, other in pairs)) ** 0.5)


def gradients(network: nn.Module) -> list[Tensor]:
    """Gradients of all parameters that have one."""
    return [p.grad for p in network.parameters() if p.grad is not None]


@torch.no_grad()
def used_statistics(network: nn.Module) -> None:
    """Gives batch norms the statistics and scales of a network that was trained, seeded."""
    generator = torch.Generator().manual_seed(2)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            for values, low, high in (
                (norm.running_mean, -0.3, 0.3),
                (norm.running_var, 0.5, 2.0),
                (norm.weight, 0.5, 1.5),
                (norm.bias, -0.3, 0.3),
            ):
                drawn = low + (high - low) * torch.rand(values.shape, generator=generator)
                values.copy_(drawn)
