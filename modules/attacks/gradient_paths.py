"""By which path an attack's gradient goes through a network; its predictions stay the same."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from datamodules.files.errors import UserError

GradientPath = Literal["auto", "forward", "surrogate", "straight_through"]


class SwappedGradient(nn.Module):
    """A network's own values with the gradient of another function (BPDA, Athalye et al. 2018).

    Args:
        network: classifier of pixels in [0, 1].
        soft: differentiable function of the images that stands in for it, `(B, num_classes)`.
    """

    def __init__(self, network: nn.Module, soft: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        self.soft = soft
        # torchattacks puts back the mode that it finds here, in the network below, too
        self.train(network.training)

    def forward(self, images: Tensor) -> Tensor:
        """Values of `network(images)`, `(B, num_classes)`; gradient of `soft(images)`."""
        if not torch.is_grad_enabled():
            return self.network(images)
        soft = self.soft(images)
        with torch.no_grad():
            hard = self.network(images)
        return _Swapped.apply(soft, hard)


class _Swapped(torch.autograd.Function):
    """Exactly the second argument; adding and subtracting the first would round."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor, hard: Tensor) -> Tensor:
        return hard.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient, None


@contextmanager
def gradient_path(network: nn.Module, path: GradientPath) -> Iterator[nn.Module]:
    """The network as an attack sees it.

    Args:
        network: classifier of pixels in [0, 1].
        path: `auto` is `surrogate` where a judgment block would stop the gradient, else `forward`;
            `forward` is the network as it is; `surrogate` has its values and the gradient of
            its `surrogate`; `straight_through` lets the judgment block's votes pass gradients as
            if they were probabilities (Bengio et al. 2013).

    Raises:
        UserError: if the network has no such path.
    """
    if path == "auto":
        path = "surrogate" if judgment_blocks(network) else "forward"
    if path == "forward":
        yield network
    elif path == "surrogate":
        if not hasattr(network, "surrogate"):
            raise UserError(
                f"{type(network).__name__} has no `surrogate`: set the threat's through: forward"
            )
        yield SwappedGradient(network, network.surrogate)  # type: ignore[arg-type]
    else:
        blocks = judgment_blocks(network)
        if not blocks:
            raise UserError(
                f"{type(network).__name__} has no judgment block: set the threat's through: forward"
            )
        yield SwappedGradient(network, partial(_straight_through, network, blocks))


@contextmanager
def mode_kept(network: nn.Module, attack: str) -> Iterator[None]:
    """Refuses an attack that leaves a network in another mode than it found it in.

    Batch norm in training mode would judge all images that follow by their batches.

    Args:
        network: what is attacked within.
        attack: name of the attack, for the message.

    Raises:
        UserError: if one of the network's modules went from eval to train or back.
    """
    modes = [module.training for module in network.modules()]
    yield
    if [module.training for module in network.modules()] != modes:
        raise UserError(
            f"attack {attack} leaves {type(network).__name__} in another mode (train, eval) than "
            "it found it in, so all that follows would be wrong: let it put the mode back"
        )


def judgment_blocks(network: nn.Module) -> list[Any]:
    """Modules of a network that take an argmax, unless told to be straight-through."""
    return [module for module in network.modules() if hasattr(module, "straight_through")]


def _straight_through(network: nn.Module, blocks: list[Any], images: Tensor) -> Tensor:
    before = [block.straight_through for block in blocks]
    try:
        for block in blocks:
            block.straight_through = True
        return network(images)
    finally:
        for block, value in zip(blocks, before, strict=True):
            block.straight_through = value
