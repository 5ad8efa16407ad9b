"""Batch norm folded into the convolution before it, while a network is attacked.

With running statistics a batch norm is one more scaling of the convolution's output channels. Under
attack neither is trained, so that both can be done as one convolution.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import fuse_conv_bn_weights

Pair = tuple[nn.Conv2d, _BatchNorm]


_known: WeakKeyDictionary[nn.Module, list[Pair]] = WeakKeyDictionary()


class _SurrogateTracer(fx.Tracer):
    traced_func_name = "surrogate"


def foldable(network: nn.Module) -> list[Pair]:
    """Convolutions whose output goes into one batch norm and nowhere else in `surrogate`.

    Args:
        network: a `PartNetwork`. Where fx cannot trace it, nothing is folded.
    """
    try:
        graph = _SurrogateTracer().trace(network)
    except Exception:  # whatever the code of a network raises when it is given no tensor
        return []
    called = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    pairs = []
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        names = str(before.target), str(node.target)
        convolution, norm = (network.get_submodule(name) for name in names)
        once = all(called.count(name) == 1 for name in names)
        # no subclasses, which may do more than their parents
        is_norm = type(norm) is nn.BatchNorm2d or type(norm) is nn.SyncBatchNorm
        if once and type(convolution) is nn.Conv2d and is_norm:
            assert isinstance(norm, _BatchNorm)
            if norm.track_running_stats and norm.affine:
                pairs.append((convolution, norm))
    return pairs


@contextmanager
def folded(network: nn.Module) -> Iterator[None]:
    """Folds the batch norms that are in eval mode; nothing of the network's state changes.

    Args:
        network: a `PartNetwork`, whose modules stay the same from the first time on.
    """
    if network not in _known:
        _known[network] = foldable(network)
    pairs = [(convolution, norm) for convolution, norm in _known[network] if not norm.training]
    try:
        for convolution, norm in pairs:
            weight, bias = _fused(convolution, norm)
            convolution.forward = partial(  # type: ignore[method-assign]
                convolution._conv_forward, weight=weight, bias=bias
            )
            norm.forward = _same  # type: ignore[method-assign, assignment]
        yield
    finally:
        for module in (module for pair in pairs for module in pair):
            vars(module).pop("forward", None)


@torch.no_grad()
def _fused(convolution: nn.Conv2d, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    weight, bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,  # type: ignore[arg-type]
        norm.running_var,  # type: ignore[arg-type]
        norm.eps,
        norm.weight,
        norm.bias,
    )
    return weight.detach(), bias.detach()


def _same(features: Tensor) -> Tensor:
    return features
