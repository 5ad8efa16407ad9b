"""Tiny networks of others, each with one fault; they are evaluated by their class path."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Sound(nn.Module):
    """Logits of three classes; faults change its input or its output."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.head = nn.Linear(8, classes)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5, generator=generator)

    def forward(self, images: Tensor) -> Any:
        return self.head(F.gelu(self.conv(images)).mean((2, 3)))


class Probabilities(Sound):
    """Its soft-max is still there."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).softmax(1)


class BatchStatistics(Sound):
    """Batch norm that keeps no running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3, track_running_stats=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(super().forward(images))


def faulty(forward: Callable[[nn.Module, Tensor], Any]) -> Callable[..., nn.Module]:
    """A function that makes a network whose `forward` is another."""

    class Faulty(Sound):
        def forward(self, images: Tensor) -> Any:
            return forward(super().forward, images)  # type: ignore[arg-type]

    return Faulty


def _in_place(net: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    if images.requires_grad:
        return net(images - 0.5)
    return net(images.sub_(0.5))


def _batch_norm(net: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    logits = net(images)
    return F.batch_norm(logits, None, None, training=True) if len(logits) > 1 else logits


def _half_blind(net: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    dark = (images.mean((1, 2, 3), keepdim=True) < images.mean()).float()
    return net(images * (1 - dark) + images.detach() * dark)


ReturnsTuple = faulty(lambda net, x: (net(x), x))
ReturnsDict = faulty(lambda net, x: {"logits": net(x), "aux": x})
Dense = faulty(lambda net, x: net(x)[:, :, None, None].expand(-1, -1, 4, 4))
OneForAll = faulty(lambda net, x: net(x).sum(0, keepdim=True))
Classes = faulty(lambda net, x: net(x).argmax(1, keepdim=True).expand(-1, 3))
NotFinite = faulty(lambda net, x: net(x) / 0)
Detached = faulty(lambda net, x: net(x).detach())
UnderNoGrad = faulty(lambda net, x: torch.no_grad()(net)(x))
Rounding = faulty(lambda net, x: net((x * 8).round() / 8))
InfiniteGradient = faulty(lambda net, x: net(x) + (x[:, 0, 0, :1] * 0).sqrt())
WantsNumPy = faulty(lambda net, x: net(torch.from_numpy(x.numpy())))
WantsLarger = faulty(lambda net, x: net(x.view(-1, 3, 224, 224)))
InPlace = faulty(_in_place)
BatchNorm = faulty(_batch_norm)
Random = faulty(lambda net, x: net(x + 0.1 * torch.randn_like(x)))
Dropout = faulty(lambda net, x: F.dropout(net(x), 0.5, training=True))
Half = faulty(lambda net, x: net(x).half())
HalfBlind = faulty(_half_blind)
