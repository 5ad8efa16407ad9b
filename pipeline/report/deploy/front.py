"""The Pareto front: models that no other is decided to be better than."""

from collections.abc import Callable, Sequence
from typing import Literal

Verdict = Literal["better", "worse", "equal", "undecided"]
Judge = Callable[[str, str, str], Verdict]
"""Whether the first model is better than the second by a criterion: names, then the criterion."""


def dominators(names: Sequence[str], criteria: Sequence[str], judge: Judge) -> dict[str, list[str]]:
    """Which models dominate each.

    One dominates another if by every criterion it is decided to be better, or equal, and better by
    one at least. A difference that is not decided, or not known, so protects both.

    Args:
        names: the models.
        criteria: by which all of them are judged.
        judge: says how two of them stand.

    Returns:
        By name, the models that dominate it; empty for those on the front.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        others = [other for other in names if other != name]
        found[name] = [o for o in others if _dominates([judge(o, name, c) for c in criteria])]
    return found


def _dominates(verdicts: Sequence[Verdict]) -> bool:
    return "better" in verdicts and set(verdicts) <= {"better", "equal"}
