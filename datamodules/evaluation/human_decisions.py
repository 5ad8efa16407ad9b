"""Decisions of people, or of any model, in the CSV format of Geirhos et al. 2021."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from datamodules.evaluation.human_stimuli import EXPERIMENTS
from datamodules.files.errors import MissingInputError, UserError

COLUMNS = ("subj", "object_response", "category", "condition", "imagename")

CONDITIONS: Mapping[str, tuple[str, ...]] = {
    "colour": ("cr", "bw"),
    "contrast": ("c100", "c50", "c30", "c15", "c10", "c05", "c03", "c01"),
    "high-pass": ("inf", "3", "1.5", "1", "0.7", "0.55", "0.45", "0.4"),
    "low-pass": ("0", "1", "3", "5", "7", "10", "15", "40"),
    "phase-scrambling": ("0", "30", "60", "90", "120", "150", "180"),
    "power-equalisation": ("0", "pow"),
    "false-colour": ("true", "false"),
    "rotation": ("0", "90", "180", "270"),
    **{
        f"eidolon{numeral}": tuple(f"{2**power}-{coherence}-10" for power in range(8))
        for numeral, coherence in (("I", 10), ("II", 3), ("III", 0))
    },
    "uniform-noise": ("0", "0.03", "0.05", "0.1", "0.2", "0.35", "0.6", "0.9"),
}
"""Conditions of the 12 parametric experiments by rising strength; the first changes nothing."""

EXCLUDED: Mapping[str, frozenset[str]] = {
    "colour": frozenset({"cr"}),
    "contrast": frozenset({"c100", "c03", "c01"}),
    "high-pass": frozenset({"inf", "0.55", "0.45", "0.4"}),
    "low-pass": frozenset({"0", "15", "40"}),
    "phase-scrambling": frozenset({"0", "150", "180"}),
    "power-equalisation": frozenset({"0"}),
    "false-colour": frozenset({"true"}),
    "rotation": frozenset({"0"}),
    "eidolonI": frozenset({"1-10-10", "64-10-10", "128-10-10"}),
    "eidolonII": frozenset({"1-3-10", "32-3-10", "64-3-10", "128-3-10"}),
    "eidolonIII": frozenset({"1-0-10", "16-0-10", "32-0-10", "64-0-10", "128-0-10"}),
    "uniform-noise": frozenset({"0", "0.6", "0.9"}),
}
"""Conditions that Geirhos et al. 2021 leave out of all means: the first, which is not out of
distribution, and those where people's mean accuracy is at most 0.2."""


@dataclass(frozen=True)
class Decisions:
    """What one decision maker answered in one experiment, ordered by image.

    Attributes:
        experiment: one of the 17 experiments.
        subject: name of the decision maker.
        images: image ids, sorted and unique.
        conditions: condition of each image; "" in experiments without.
        categories: right answer for each image.
        responses: answer for each image; anything else than a category, such as `na`, is wrong.
    """

    experiment: str
    subject: str
    images: tuple[str, ...]
    conditions: tuple[str, ...]
    categories: tuple[str, ...]
    responses: tuple[str, ...]

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether each answer is right: bool `(N,)`."""
        return np.array(self.responses) == np.array(self.categories)

    def where(self, condition: str) -> np.ndarray:
        """Which images stand under a condition: bool `(N,)`."""
        return np.array(self.conditions) == condition

    @property
    def counted(self) -> tuple[str, ...]:
        """The conditions that enter means, by strength; `("",)` in experiments without."""
        if self.experiment not in CONDITIONS:
            return ("",)
        excluded = EXCLUDED[self.experiment]
        return tuple(name for name in CONDITIONS[self.experiment] if name not in excluded)


def image_id(name: str) -> str:
    """What names an image in all trials, whatever stands before it.

    `0001_cl_s01_cr_oven_40_n04111531_14126.png` is `n04111531_14126`, and
    `0002_s5n_s01_0_bird_00_bird2-clock3.png` is `bird2-clock3`.
    """
    words = Path(name).stem.split("_")
    return "_".join(words[-2:]) if len(words) > 1 and words[-2].startswith("n0") else words[-1]


def condition_name(experiment: str, condition: str) -> str:
    """One spelling of a condition (`0.90` is `0.9`, `True` is `true`); "" where there are none."""
    if experiment not in CONDITIONS:
        return ""
    plain = condition.strip().lower()
    try:
        return f"{float(plain):g}"
    except ValueError:
        return plain


def make_decisions(
    experiment: str, subject: str, rows: Sequence[tuple[str, str, str, str]]
) -> Decisions:
    """Orders trials by image.

    Args:
        experiment: name of the experiment.
        subject: name of the decision maker.
        rows: image name, condition, category and response of each trial.

    Raises:
        UserError: if an image occurs twice or a condition is unknown.
    """
    table = sorted(
        (image_id(name), condition_name(experiment, condition), category, response.strip().lower())
        for name, condition, category, response in rows
    )
    images, conditions, categories, responses = zip(*table, strict=True)
    if len(set(images)) < len(images):
        twice = next(a for a, b in pairwise(images) if a == b)
        raise UserError(f"{experiment}, {subject}: image {twice} occurs twice")
    if unknown := set(conditions) - set(CONDITIONS.get(experiment, ("",))):
        raise UserError(f"{experiment}, {subject}: unknown condition {min(unknown)}")
    return Decisions(experiment, subject, images, conditions, categories, responses)


def read_decisions(folder: Path) -> dict[str, list[Decisions]]:
    """Reads `<experiment>/*.csv` below a folder, or below its `raw-data/`.

    Columns are `subj, session, trial, rt, object_response, category, condition, imagename` in any
    order and case; session, trial and rt are not needed.

    Args:
        folder: folder with a folder for each experiment; other folders do no harm.

    Returns:
        By experiment, in the order of `EXPERIMENTS`, those that are there: one entry for each
        decision maker, by name; all its sessions together.

    Raises:
        MissingInputError: if the folder holds no experiment.
        UserError: if a file lacks a column, or a trial is malformed.
    """
    root = folder / "raw-data" if (folder / "raw-data").is_dir() else folder
    found: dict[str, list[Decisions]] = {}
    for experiment in EXPERIMENTS:
        rows: dict[str, list[tuple[str, str, str, str]]] = {}
        for file in sorted((root / experiment).glob("[!.]*.csv")):
            for subject, row in _read_rows(file):
                rows.setdefault(subject, []).append(row)
        if rows:
            found[experiment] = [
                make_decisions(experiment, subject, rows[subject]) for subject in sorted(rows)
            ]
    if not found:
        raise MissingInputError(
            f"{root} holds no experiment with CSV files, such as {EXPERIMENTS[0]}/subject.csv"
        )
    return found


def read_decisions_file(file: Path) -> dict[str, Decisions]:
    """Reads one CSV file: one decision maker in one experiment.

    Args:
        file: named `<experiment>_....csv` or lying in a folder of that name.

    Returns:
        The decisions by experiment, one entry.

    Raises:
        UserError: if neither name is that of an experiment, or the file is malformed.
    """
    named = [name for name in EXPERIMENTS if file.stem == name or file.stem.startswith(f"{name}_")]
    named += [file.parent.name] if file.parent.name in EXPERIMENTS else []
    if not named:
        raise UserError(
            f"{file}: neither file nor folder is named after an experiment "
            f"({', '.join(EXPERIMENTS)}): rename it to <experiment>_<model>.csv"
        )
    rows = _read_rows(file)
    subjects = sorted({subject for subject, _ in rows})
    if len(subjects) != 1:
        raise UserError(f"{file} holds {len(subjects)} decision makers, one is needed")
    return {named[0]: make_decisions(named[0], subjects[0], [row for _, row in rows])}


def _read_rows(file: Path) -> list[tuple[str, tuple[str, str, str, str]]]:
    with file.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        names = {name.strip().lower(): name for name in reader.fieldnames or ()}
        if missing := [column for column in COLUMNS if column not in names]:
            raise UserError(f"{file} has no column {missing[0]}; needed: {', '.join(COLUMNS)}")
        subject, response, category, condition, image = (names[column] for column in COLUMNS)
        return [
            (row[subject], (row[image], row[condition], row[category], row[response] or "na"))
            for row in reader
        ]
