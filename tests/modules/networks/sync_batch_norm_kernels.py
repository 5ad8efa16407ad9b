"""The five steps of synchronised batch norm for CPUs, which torch has for GPUs alone.

Formulas: Ioffe and Szegedy (2015), algorithm 1 and the gradients of its §3.
"""

import torch
from torch import Tensor

_library = torch.library.Library("aten", "IMPL")


def enable_on_cpu() -> None:
    """Lets `nn.SyncBatchNorm` of this process work on CPUs, by these formulas."""
    torch._C._get_privateuse1_backend_name = lambda: "cpu"  # the device that it lets pass
    for kernel in (stats, gather_stats_with_counts, elemt, backward_reduce, backward_elemt):
        _library.impl(f"batch_norm_{kernel.__name__}", kernel, "CPU")


def stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation of each channel."""
    flat = x.transpose(0, 1).flatten(1)
    return flat.mean(1), (flat.var(1, correction=0) + eps).rsqrt()


def gather_stats_with_counts(
    x: Tensor,
    means: Tensor,
    invstds: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:
    """The same over all processes, `(processes, C)` and `counts (processes,)`."""
    number = counts.sum()
    share = (counts / number)[:, None]
    mean = (share * means).sum(0)
    var = (share * (invstds**-2 - eps + (means - mean) ** 2)).sum(0)
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(var * number / (number - 1), momentum)
    return mean, (var + eps).rsqrt()


def elemt(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, invstd: Tensor, eps: float
) -> Tensor:
    """The normalised input."""
    assert weight is not None
    assert bias is not None
    return (x - _wide(mean)) * _wide(invstd * weight) + _wide(bias)


def backward_reduce(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    invstd: Tensor,
    weight: Tensor | None,
    *_: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums of the gradient, of it times the centred input; gradients of weight and bias."""
    total = grad.sum((0, 2, 3))
    centred = (grad * (x - _wide(mean))).sum((0, 2, 3))
    return total, centred, centred * invstd, total.clone()


def backward_elemt(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    invstd: Tensor,
    weight: Tensor | None,
    total: Tensor,
    centred: Tensor,
    counts: Tensor,
) -> Tensor:
    """Gradient of the input, from the sums over all processes."""
    assert weight is not None
    number = counts.sum()
    along = (x - _wide(mean)) * _wide(invstd**2 * centred / number)
    return (grad - _wide(total / number) - along) * _wide(invstd * weight)


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None]
