"""The demo says in words what its figures decide, and what not."""

import numpy as np

from pipeline.demo_figures import words
from pipeline.evaluation.compare_outcomes import compare
from pipeline.evaluation.outcome_tables import Outcomes


def outcomes(robust: np.ndarray) -> Outcomes:
    keys = {f"cat/{i}.png": bool(value) for i, value in enumerate(robust)}
    return Outcomes("a run", int(robust.sum()), len(robust), keys)


def said(pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[str]:
    measured = {name: (outcomes(a), outcomes(b)) for name, (a, b) in pairs.items()}
    rows = {name: compare(*pair) for name, pair in measured.items()}
    return words(rows, measured, {name: f"{name}, linf 4/255" for name in pairs})


def test_decided_and_undecided_differences() -> None:
    vanilla = np.arange(600) < 240
    better, alike = np.arange(600) < 300, vanilla.copy()
    alike[[0, 1, 599]] ^= True
    first, second, third, weak, last = said(
        {"a": (vanilla, better), "b": (vanilla, alike), "c": (better, vanilla)}
    )
    assert first.startswith("a, linf 4/255: MPM is above vanilla, +10.0 points [+")
    assert first.endswith("on 600 images.")
    assert second.startswith("b, linf 4/255: undecided, MPM - vanilla is -0.2 points [-")
    assert third.startswith("c, linf 4/255: MPM is below vanilla, -10.0 points [-")
    assert "weaker than AutoAttack, which was not run" in weak
    assert "one training each" in last


def test_autoattack_on_few_images_checks_pgd_and_compares_nothing() -> None:
    pgd, strong = np.arange(600) % 2 == 0, np.arange(16) % 4 == 0
    lines = said({"pgd10": (pgd, pgd), "autoattack": (strong, strong)})
    assert len(lines) == 3
    assert "Of the 16 images that AutoAttack saw, MPM holds 8 under PGD" in lines[1]
    assert "AutoAttack breaks 4 of these" in lines[1]
