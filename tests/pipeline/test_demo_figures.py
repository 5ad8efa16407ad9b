"""The demo says in words what its figures decide, and what not."""

from pathlib import Path

import numpy as np

from pipeline.demo_figures import over_trainings, words
from pipeline.evaluation.compare_outcomes import compare
from pipeline.evaluation.outcome_tables import Outcomes
from pipeline.study.outcomes import write_outcomes
from pipeline.study.results import Result


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
    first, second, third, weak = said(
        {"a": (vanilla, better), "b": (vanilla, alike), "c": (better, vanilla)}
    )
    assert first.startswith("a, linf 4/255: MPM is above vanilla, +10.0 points [+")
    assert first.endswith("on 600 images.")
    assert second.startswith("b, linf 4/255: undecided, MPM - vanilla is -0.2 points [-")
    assert third.startswith("c, linf 4/255: MPM is below vanilla, -10.0 points [-")
    assert "weaker than AutoAttack, which was not run" in weak


def test_autoattack_on_few_images_checks_pgd_and_compares_nothing() -> None:
    pgd, strong = np.arange(600) % 2 == 0, np.arange(16) % 4 == 0
    lines = said({"pgd10": (pgd, pgd), "autoattack": (strong, strong)})
    assert len(lines) == 2
    assert "Of the 16 images that AutoAttack saw, MPM holds 8 under PGD" in lines[1]
    assert "AutoAttack breaks 4 of these" in lines[1]


def test_other_trainings_are_those_of_a_study_of_the_same_recipe(tmp_path: Path) -> None:
    """MPM answers 30 of 50 images in every training, and vanilla 20."""
    study, recipes = tmp_path / "study_shapes.parquet", {"mpm": "a", "vanilla": "b"}
    unknown = over_trainings(study, recipes)
    assert "one training each" in unknown
    assert unknown.endswith("make study says by how much.")
    results = [
        Result(row, row, seed, None, {"apgd_4": {str(key): key < right for key in range(50)}})
        for row, right in (("mpm", 30), ("vanilla", 20))
        for seed in range(3)
    ]
    write_outcomes(study, results, recipes)
    line = over_trainings(study, recipes)
    assert "over 3 of each, on 50 images, MPM - vanilla is in points +20.0 ± 11." in line
    assert " under APGD 4/255, with the weights of the last epoch (docs/study_shapes.md)" in line
    changed = over_trainings(study, recipes | {"mpm": "changed"})
    assert "by how much (" in changed
    assert "mpm was made by other configurations than today's" in changed
    write_outcomes(study, [r for r in results if r.seed == 0], recipes)
    assert "has no two trainings of each" in over_trainings(study, recipes)
    study.write_bytes(b"no Parquet")
    assert "holds no outcomes of a study" in over_trainings(study, recipes)
