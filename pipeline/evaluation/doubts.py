"""What makes the outcome of an attack doubtful, as it is found: kept in the run folder."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from datamodules.evaluation.attack_units import AttackUnit
from pipeline.evaluation.summary_file import Summary


@dataclass(frozen=True)
class ProbedDoubts(Summary):
    """What the look at the model before the attacks found, one line each."""

    file: ClassVar[str] = "records/doubts.json"
    remedy: ClassVar[str] = "delete it, the next make evaluate writes it anew"

    lines: list[str]

    @classmethod
    def add(cls, root: Path, lines: Sequence[str]) -> None:
        """Adds lines to those of earlier runs into the same folder."""
        known = cls.lines_of(root)
        if new := [line for line in lines if line not in known]:
            cls([*known, *new]).write(root)

    @classmethod
    def lines_of(cls, root: Path) -> list[str]:
        """The lines that are kept in a run folder."""
        found = cls.find(root)
        return [] if found is None else found.lines


def attack_warnings(root: Path, units: Sequence[AttackUnit]) -> list[str]:
    """Warnings of the attack library in the records, one line for each kind and threat.

    Args:
        root: run folder with all records.
        units: what the result rests on.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for unit in units:
        # texts that differ in a number alone say the same of other images
        texts = {re.sub(r"\d+(\.\d+)?", "#", text): text for text in unit.warnings(root)}
        for kind, text in texts.items():
            found.setdefault((unit.threat, kind), []).append(text)
    chunks = [unit.threat for unit in units]
    return [
        f"WARNING: {threat}: the attack library warns in {len(texts)} of {chunks.count(threat)} "
        f"chunks: {texts[0]}"
        for (threat, _), texts in found.items()
    ]
