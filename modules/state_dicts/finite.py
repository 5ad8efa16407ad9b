"""Values that are not finite are refused where they enter: NaN logits would answer class 0."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from datamodules.files.errors import UserError

SHOWN = 3


class NotFiniteError(UserError):
    """A NaN or an infinity where there must be a number.

    Args:
        what: what is not finite, without the mend.
        mend: what to do about it, where nobody who catches the error knows better.
    """

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what, mend)
        self.what = what

    def __str__(self) -> str:
        return ": ".join(self.args)


def all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Whether all values of some tensors are finite, by few kernels and without waiting for them.

    Returns:
        A bool scalar on their device; True where there are no floats.
    """
    floats = [x.detach() for x in tensors if x.numel() and x.is_floating_point()]
    # Twenty times as fast as the exact way on a CPU, but squares of large finite values overflow.
    if all(x.is_cpu for x in floats) and torch.isfinite(get_total_norm(floats, 2.0)):
        return torch.tensor(True)
    return torch.isfinite(get_total_norm(floats, torch.inf))


def require_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuses weights that are not finite.

    Args:
        tensors: by name.
        source: what they come from, for the message.

    Raises:
        NotFiniteError: naming the first such tensors.
    """
    if wrong := not_finite(tensors):
        raise NotFiniteError(
            f"{source} holds values that are not finite in {listed(wrong)}",
            "its training diverged; take an earlier checkpoint or train with a lower learning rate",
        )


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold a NaN or an infinity, in their order."""
    return [
        name
        for name, value in tensors.items()
        if value.is_floating_point() and not torch.isfinite(value).all()
    ]


def listed(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(names[:SHOWN]) + f" and {len(names) - SHOWN} more" * (len(names) > SHOWN)


class FiniteOutputs:
    """Forward hook that refuses outputs that are not finite in eval mode, at every call.

    In training the loss says so, and it is watched.

    Args:
        what: the outputs are, for the message.
    """

    def __init__(self, what: str) -> None:
        self.what = what

    def __call__(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        """Looks at the outputs of a call: tensors, however nested in lists and dicts.

        Raises:
            NotFiniteError: if one of their values is not finite.
        """
        if module.training:
            return
        tensors = (tensor for _, tensor in named_tensors(outputs))
        if not all_finite(tensors):
            raise NotFiniteError(
                f"{self.what} are not finite",
                "use another checkpoint, or --trainer.precision=32-true",
            )


class FiniteLogits:
    """Forward hook of a network that refuses logits that are not finite, at every call.

    Args:
        name: of the model, for the message.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: nn.Module, inputs: Any, logits: Any) -> None:
        """Looks at the logits `(B, num_classes)` of a call.

        Raises:
            NotFiniteError: if one of them is not finite.
        """
        if isinstance(logits, Tensor) and not torch.isfinite(logits).all():
            count = int((~torch.isfinite(logits)).any(-1).sum())
            raise NotFiniteError(
                f"model {self.name} gives logits that are not finite for {count} of {len(logits)} "
                "images",
                "such an answer is neither right nor wrong; evaluate in float32 "
                "(--trainer.precision=32-true) or another checkpoint",
            )


def named_tensors(nested: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested dicts and lists, with the keys and positions that lead to them."""
    if isinstance(nested, list | tuple):
        nested = dict(enumerate(nested))
    if isinstance(nested, Mapping):
        for key, value in nested.items():
            yield from named_tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(nested, Tensor):
        yield name, nested
