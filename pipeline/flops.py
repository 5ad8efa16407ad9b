"""A counter of floating point operations: torch's, of convolutions and matrix products."""

from contextlib import nullcontext

from torch.utils.flop_counter import FlopCounterMode


class _NoModules(nullcontext[None]):
    """Stands in for torch's module tracker.

    Its hooks bear neither `autograd.grad` nor a module without gradients of which a parameter
    wants one.
    """

    parents = frozenset({"Global"})


def flop_counter() -> FlopCounterMode:
    """A context whose `get_total_flops()` tells what ran in it; a multiply-add counts as 2."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    return counter
