"""What an evaluation that stops against another model decided: `decisions.json`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from datamodules.evaluation.attack_units import AttackUnit, outcomes_of
from datamodules.evaluation.paired_stopping import PairedDecision
from datamodules.files.json_files import read_json, write_json
from datamodules.robustness import RobustnessDataModule

FILE = "decisions.json"


def decide(
    root: Path, data: RobustnessDataModule, units: Sequence[AttackUnit]
) -> list[PairedDecision]:
    """The comparisons of a finished evaluation, written to its run folder; none without one.

    Args:
        root: run folder with all records.
        data: its images.
        units: what the result rests on.
    """
    rule = data.stopping.paired
    if rule is None:
        (root / FILE).unlink(missing_ok=True)  # of an earlier call that compared
        return []
    decisions = []
    for threat in data.images:
        robust: dict[str, bool] = {}
        for unit in units:
            if unit.threat == threat and (record := unit.outcomes(root)) is not None:
                robust |= outcomes_of(record)
        decisions.append(rule.decision(threat, robust))
    content = {
        "against": str(data.stop_against),
        "decisions": [asdict(row) | {"better": row.better} for row in decisions],
    }
    write_json(root / FILE, content)
    return decisions


def decision_line(row: PairedDecision, other: str) -> str:
    """One line of a comparison, with what stopping saved."""
    low, high = row.share
    found = {"this": f"better than {other}", "other": f"worse than {other}"}
    text = found.get(row.better, f"undecided against {other}")
    return (
        f"{row.threat}: {text} at level {row.level:g}; alone right on {row.wins}, the other on "
        f"{row.losses}, share [{low:.2f}, {high:.2f}] at any time; {row.images:,} of "
        f"{row.available:,} images attacked, {1 - row.images / row.available:.0%} saved"
    )


def stopped_threats(run: Path) -> dict[str, str]:
    """Threats that ended because a comparison was decided, and with which other evaluation."""
    if not (run / FILE).is_file():
        return {}
    content = read_json(run / FILE, "delete it and run make evaluate again")
    return {
        row["threat"]: content["against"]
        for row in content["decisions"]
        if row["better"] and row["images"] < row["available"]  # else its width ended it
    }


def was_stopped(run: Path) -> bool:
    """Whether any threat of an evaluation ended because a comparison was decided."""
    return bool(stopped_threats(run))
