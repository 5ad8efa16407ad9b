"""How alike two decision makers err: the metrics of Geirhos et al. 2020 and 2021.

For two decision makers who saw the same images, with accuracies p and q:
accuracy difference (p - q)^2; observed consistency c_o, the share of images that both get right
or both get wrong; expected consistency c_e = p q + (1 - p)(1 - q), that of independent decision
makers; error consistency, Cohen's kappa (c_o - c_e) / (1 - c_e), and 1 if c_o is 1.

Each is computed under each condition that counts, for a model against one person at a time. Then
means are taken, all unweighted, in this order: over the conditions of an experiment, over its
people, over the experiments. In the five experiments without conditions all images are one
condition. People against people: each pair once, then the same way.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from datamodules.evaluation.human_decisions import Decisions
from datamodules.files.errors import UserError

METRICS = ("accuracy_difference", "observed_consistency", "error_consistency")


def compare(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """The three metrics of two decision makers on the same images.

    Args:
        a: whether each answer is right, bool `(N,)`, N at least 1.
        b: the same of the other, in the same order.
    """
    p, q = float(a.mean()), float(b.mean())
    observed, expected = float((a == b).mean()), p * q + (1 - p) * (1 - q)
    kappa = 1.0 if observed == 1 else (observed - expected) / (1 - expected)
    return {
        "accuracy_difference": (p - q) ** 2,
        "observed_consistency": observed,
        "error_consistency": kappa,
    }


def compare_decisions(a: Decisions, b: Decisions) -> dict[str, dict[str, float]]:
    """The three metrics by condition, for the conditions that count.

    Raises:
        UserError: if the two did not see the same images.
    """
    if a.images != b.images or a.conditions != b.conditions or a.categories != b.categories:
        shared = len(set(a.images) & set(b.images))
        raise UserError(
            f"{a.experiment}: {a.subject} and {b.subject} share {shared} of {len(a.images)} and "
            f"{len(b.images)} images, or differ in their conditions or categories: give decisions "
            "on exactly the images that people saw"
        )
    return {
        condition: compare(a.correct[a.where(condition)], b.correct[b.where(condition)])
        for condition in a.counted
        if a.where(condition).any()
    }


def model_alignment(model: Decisions, people: Sequence[Decisions]) -> dict[str, float]:
    """A model against the people of one experiment: mean over conditions, then over people."""
    return _mean([_mean(list(compare_decisions(model, one).values())) for one in people])


def human_alignment(people: Sequence[Decisions]) -> dict[str, float]:
    """The people of one experiment against each other: mean over conditions, then over pairs.

    Raises:
        UserError: if there are fewer than two people.
    """
    if len(people) < 2:
        raise UserError(f"{people[0].experiment} has one person, pairs need two")
    pairs = combinations(people, 2)
    return _mean([_mean(list(compare_decisions(a, b).values())) for a, b in pairs])


def accuracy(deciders: Sequence[Decisions], conditions: Sequence[str]) -> float:
    """Accuracy over all trials of some decision makers under some conditions; nan without any."""
    right = [one.correct[np.isin(one.conditions, conditions)] for one in deciders]
    trials = np.concatenate(right)
    return float(trials.mean()) if len(trials) else float("nan")


def mean_over_experiments(rows: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Unweighted mean of each figure over experiments."""
    return _mean(list(rows.values()))


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
