"""Sentences: who should choose which model, as far as the intervals decide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.report.cells import Cell
from pipeline.report.deploy.candidates import (
    ATTACK,
    CORRUPTED,
    GFLOPS,
    MILLISECONDS,
    PARAMETERS,
    SHIFTED,
    Field,
)
from pipeline.report.robustness_tables import CLEAN

GOALS = {
    CLEAN: "clean images",
    ATTACK: "images that someone attacks",
    CORRUPTED: "corrupted images",
    SHIFTED: "images unlike those it was trained on",
    PARAMETERS: "little memory",
    GFLOPS: "little computation",
    MILLISECONDS: "a fast answer on this machine",
}


@dataclass(frozen=True)
class Lead:
    """Which model is best by one criterion.

    Attributes:
        criterion: the criterion.
        name: the model with the best figure.
        equal: models that did exactly as well.
        undecided: models of which the interval does not say that they are worse.
        others: how many others have a figure.
    """

    criterion: str
    name: str
    equal: tuple[str, ...]
    undecided: tuple[str, ...]
    others: int

    @property
    def is_decided(self) -> bool:
        """Whether the model is decided to be better than every other with a figure."""
        return bool(self.others) and not (self.equal or self.undecided)


def leads(
    field: Field, criteria: Sequence[str], dominated: Mapping[str, Sequence[str]]
) -> list[Lead]:
    """The best model by each criterion, and those that are not told from it.

    Of models that are equal it is one on the front, where there is one.

    Args:
        field: all models.
        criteria: by which they are judged.
        dominated: by name, the models that dominate it.
    """
    found = []
    for criterion in criteria:
        values = {name: field.cell(name, criterion).value for name in field.candidates}
        known = {name: value for name, value in values.items() if value is not None}
        low_is_good = criterion in (PARAMETERS, GFLOPS, MILLISECONDS)
        best = (min if low_is_good else max)(known, key=lambda name: known[name])
        others = [name for name in known if name != best]
        tied = [name for name in others if field.judge(best, name, criterion) == "equal"]
        best = min([best, *tied], key=lambda name: bool(dominated[name]))
        verdicts = {other: field.judge(best, other, criterion) for other in known if other != best}
        equal = tuple(name for name, verdict in verdicts.items() if verdict == "equal")
        rest = tuple(n for n, verdict in verdicts.items() if verdict in ("undecided", "worse"))
        found.append(Lead(criterion, best, equal, rest, len(verdicts)))
    return found


def opening(dominated: Mapping[str, Sequence[str]]) -> str:
    """How many models are left to choose from."""
    front = [name for name, better in dominated.items() if not better]
    if len(dominated) == 1:
        return f"{front[0]} is the only model here: there is nothing to choose from yet."
    if len(front) == 1:
        return (
            f"Deploy {front[0]}: it is at least as good as every other model in everything that "
            "was measured, and decided better in something."
        )
    return (
        f"{len(front)} of {len(dominated)} models are left to choose from "
        f"({_listed(front)}): no other is decided better in one thing and as good in all."
    )


def lead_sentences(field: Field, found: Sequence[Lead], digits: Mapping[str, int]) -> list[str]:
    """One sentence a criterion, in the order given."""
    return [_lead_sentence(field, lead, digits[lead.criterion]) for lead in found]


def model_sentences(
    dominated: Mapping[str, Sequence[str]], found: Sequence[Lead], attack: str
) -> list[str]:
    """One sentence a model: who should choose it, or which model is better.

    Args:
        dominated: by name, the models that dominate it.
        found: the best model by each criterion.
        attack: title of the attack.
    """
    titles = {ATTACK: attack, GFLOPS: "GFLOPs", MILLISECONDS: "milliseconds"}
    lines = []
    for name, better in dominated.items():
        alone = [GOALS[one.criterion] for one in found if one.name == name and one.is_decided]
        shared = [
            titles.get(one.criterion, one.criterion)
            for one in found
            if one.others and not one.is_decided
            if name in (one.name, *one.equal, *one.undecided)
        ]
        if better:
            are = "are each" if len(better) > 1 else "is"
            text = f"leave it, {_listed(better)} {are} as good in all and better in some"
            lines.append(f"{name}: {text}.")
            continue
        said = [f"choose it for {_listed(alone)}"] if alone else []
        said += [f"among the best, equal or undecided, in {_listed(shared)}"] if shared else []
        lines.append(f"{name}: {'; '.join(said) or 'best in nothing, and worse in nothing'}.")
    return lines


def _lead_sentence(field: Field, lead: Lead, digits: int) -> str:
    text = f"For {GOALS[lead.criterion]}: {lead.name}, {_figure(field, lead, lead.name, digits)}"
    if not lead.others:
        return f"{text}, the only one that was measured."
    said = []
    if lead.equal:
        said.append(f"equal: {_listed(lead.equal)}")
    if lead.undecided:
        figures = [f"{n} {_figure(field, lead, n, digits)}" for n in lead.undecided]
        said.append(f"not decided against {_listed(figures)}")
    if not said:
        lacking = lead.others < len(field.candidates) - 1
        said.append("decided against all others" + " that were measured" * lacking)
    return f"{text}; {'; '.join(said)}."


def _figure(field: Field, lead: Lead, name: str, digits: int) -> str:
    cell: Cell = field.cell(name, lead.criterion)
    unit = {PARAMETERS: " M", GFLOPS: " GFLOPs", MILLISECONDS: " ms"}.get(lead.criterion, " %")
    interval = ""
    if cell.low is not None and cell.high is not None:
        interval = f" ({cell.low:.{digits}f} to {cell.high:.{digits}f})"
    return f"{cell.value:.{digits}f}{unit}{interval}"


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
