"""What an entry finds."""

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Check:
    """A deviation that must not exceed a tolerance.

    Attributes:
        name: what deviates.
        value: the deviation, 0 or more.
        tolerance: the largest that is passed.
        against: what it deviates from.
    """

    name: str
    value: float
    tolerance: float
    against: str

    @property
    def passed(self) -> bool:
        """Whether it is small enough; what is not a number is not."""
        return self.value <= self.tolerance


@dataclass(frozen=True)
class Ratio:
    """Two ways measured side by side.

    Attributes:
        name: what was measured.
        theirs: of the way that ours is compared with.
        ours: of this project.
        unit: of both; of `images/s` more is better, of anything else less.
        against: what theirs is.
        aim: ratio to reach on a GPU, None where there is none.
    """

    name: str
    theirs: float
    ours: float
    unit: str
    against: str = "the authors' algorithm"
    aim: float | None = None

    @property
    def value(self) -> float:
        """How many times better ours is."""
        better, worse = self.theirs, self.ours
        if self.unit == "images/s":
            better, worse = worse, better
        return better / worse if worse else math.inf


@dataclass(frozen=True)
class Figure:
    """A number that stands for itself.

    Attributes:
        name: what was measured.
        value: None where this machine cannot measure it.
        unit: of the value.
        aim: to reach on a GPU, or more; None where there is none.
    """

    name: str
    value: float | None
    unit: str
    aim: float | None = None


Result = Check | Ratio | Figure


def memory_ratio(name: str, theirs: float, ours: float, device: str) -> Ratio | Figure:
    """Peaks of memory, MB; those of a CPU belong to a process and are no measure of a call."""
    if device != "cuda":
        return Figure(name, None, "MB")
    return Ratio(name, theirs, ours, "MB")


@dataclass
class Report:
    """All results.

    Attributes:
        results: in their order.
        failed: names of the entries that raised an error, with its message.
        skipped: names of the entries that did not fit the budget, with what they needed.
        seconds: of everything.
    """

    results: list[Result] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether all checks that ran are passed and nothing raised an error."""
        checks = [result.passed for result in self.results if isinstance(result, Check)]
        return not self.failed and all(checks)


def verdict(value: float, aim: float | None, device: str) -> str:
    """Whether an aim is met; aims are for GPUs."""
    if aim is None:
        return "no aim"
    if device != "cuda":
        return "not measured"
    return "met" if value >= aim else "missed"
