"""What the demo found, as tables and in words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from datamodules.files.errors import UserError
from pipeline.evaluation.compare_outcomes import compare
from pipeline.evaluation.outcome_tables import Outcomes, read_outcomes
from pipeline.evaluation.summaries import RobustnessSummary, ThreatRow
from pipeline.labelling.quality import LabelQuality
from pipeline.runs.metrics import Metrics
from pipeline.runs.stages import LABELS, SEGMENTER
from pipeline.study.outcomes import read_outcomes as read_study
from pipeline.study.results import THREATS
from pipeline.study.summary import difference

AUTOATTACK, SAME_BALL = "autoattack", "pgd10"  # of configs/evaluate/small.yaml, both 4/255
SEGMENTER_ROWS = {
    "segmenter AP": "segm_AP",
    "segmenter AP50": "segm_AP50",
    "segmenter mIoU": "semantic_mIoU",
}
ENOUGH = 100  # images for a word about a difference


def show_parts(runs: Path, console: Console) -> None:
    """Prints what the segmenter and its labels reach, without and with the category filter.

    Args:
        runs: folder of the demo's runs.
        console: to print to.
    """
    measured, quality = Metrics.find(runs / SEGMENTER.name), LabelQuality.find(runs / LABELS.name)
    assert measured is not None  # it is written before
    parts = Table("", "without filter", "with filter", title="Parts, category filter")
    for title, key in SEGMENTER_ROWS.items():
        values = measured.values[key], measured.values[f"{key}_filtered"]
        parts.add_row(title, *(f"{value:.3f}" for value in values))
    if quality is not None:
        parts.add_row("pseudo-label mIoU", "", f"{quality.miou:.3f}")
    console.print(parts)


def show_robustness(mpm: Path, vanilla: Path, trainings: str, console: Console) -> None:
    """Prints the accuracies of both models, their paired differences, and what these say.

    Args:
        mpm: evaluation of MPM.
        vanilla: evaluation of vanilla adversarial training, on the same images.
        trainings: what is known of other trainings, a sentence.
        console: to print to.
    """
    titles = {row.name: _title(row) for row in RobustnessSummary.read(mpm).threats}
    outcomes = {name: (read_outcomes(vanilla, name), read_outcomes(mpm, name)) for name in titles}
    rows = {name: compare(*pair) for name, pair in outcomes.items()}
    head = ("", "images", "MPM", "vanilla AT", "MPM - vanilla, 95 % interval")
    table = Table(*head, title="Accuracy in %")
    for name, row in rows.items():
        sides = (f"{100 * row[side]['accuracy']:.1f}" for side in ("b", "a"))
        gap, (low, high) = 100 * row["difference"], (100 * bound for bound in row["ci95"])
        difference = rf"{gap:+.1f} \[{low:+.1f}, {high:+.1f}]"
        table.add_row(titles[name], str(row["b"]["n"]), *sides, difference)
    console.print(table)
    for line in [*words(rows, outcomes, titles), trainings]:
        console.print(f"- {line}", markup=False, highlight=False)


def words(
    rows: Mapping[str, Mapping[str, Any]],
    outcomes: Mapping[str, tuple[Outcomes, Outcomes]],
    titles: Mapping[str, str],
) -> list[str]:
    """What the figures show and what not, a sentence a line.

    Args:
        rows: by threat, what `compare` says of vanilla and MPM.
        outcomes: by threat, outcomes of vanilla and of MPM.
        titles: by threat, what it is called.
    """
    lines = [_verdict(titles[name], row) for name, row in rows.items() if row["b"]["n"] >= ENOUGH]
    if AUTOATTACK in outcomes and SAME_BALL in outcomes:
        strong, weak = (outcomes[name][1].robust for name in (AUTOATTACK, SAME_BALL))
        held = [key for key in strong if weak.get(key)]
        broken = len(held) - sum(strong[key] for key in held)
        lines.append(
            f"Of the {len(strong)} images that AutoAttack saw, MPM holds {len(held)} under PGD in "
            f"the same ball, and AutoAttack breaks {broken} of these: by so much PGD's figures may "
            "be too high. So few images compare no models."
        )
    else:
        lines.append(
            "PGD of ten steps is weaker than AutoAttack, which was not run: make evaluate "
            "MODEL=... ARGS=--data.init_args.images.autoattack=50 takes minutes."
        )
    return lines


def over_trainings(study: Path, recipes: Mapping[str, str]) -> str:
    """How far MPM is from vanilla over several trainings, and that those above are one of each.

    Args:
        study: outcomes of a study, its page beside them.
        recipes: hash of today's configurations of `mpm` and `vanilla`, see `StudyCommands.recipes`.
    """
    alone = "The intervals above are over images, of one training each; trainings differ, too"
    unknown = f"{alone}: make study says by how much"
    if not study.is_file():
        return f"{unknown}."
    try:
        results = read_study(study, recipes)
    except UserError as error:  # damaged, or of other settings
        return f"{unknown} ({error})."
    found = {name: difference(results, "mpm", "vanilla", name) for name in THREATS}
    known = {name: gap for name, gap in found.items() if gap is not None and gap.runs > 1}
    if not known:
        return f"{unknown} ({study} has no two trainings of each)."
    one = next(iter(known.values()))
    gaps = ", ".join(
        f"{gap.mean:+.1f} ± {gap.half:.1f} {'' if name == 'clean' else 'under '}{THREATS[name]}"
        for name, gap in known.items()
    )
    return (
        f"{alone}: over {one.runs} of each, on {one.images:,} images, MPM - vanilla is in points "
        f"{gaps}, with the weights of the last epoch (docs/{study.stem}.md)."
    )


def _verdict(name: str, row: Mapping[str, Any]) -> str:
    gap, (low, high) = 100 * row["difference"], (100 * bound for bound in row["ci95"])
    interval = f"[{low:+.1f}, {high:+.1f}] on {row['b']['n']} images"
    if low <= 0 <= high:
        return f"{name}: undecided, MPM - vanilla is {gap:+.1f} points {interval}."
    side = "above" if gap > 0 else "below"
    return f"{name}: MPM is {side} vanilla, {gap:+.1f} points {interval}."


def _title(row: ThreatRow) -> str:
    return row.name if row.norm is None else f"{row.name}, {row.norm} {round(255 * row.eps)}/255"
