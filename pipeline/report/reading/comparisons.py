"""The model with parts beside its baseline: which two they are, and how far they differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from datamodules.files.errors import MissingInputError, UserError
from pipeline.evaluation.compare_outcomes import compare
from pipeline.evaluation.outcome_tables import Outcomes, read_outcomes, threats_of
from pipeline.report.part_maps import find_model
from pipeline.report.reading.evaluations import Evaluation, ThreatResult
from pipeline.report.reading.facts import config_leaves
from pipeline.report.reading.runs import data_arguments
from pipeline.runs.manifest import Manifest
from pipeline.runs.stages import MPM

ENOUGH = 100  # images; with fewer, the interval of a difference is some 20 points wide
PUBLISHED_BALL = ("linf", 4 / 255)
PART_LOSS = "part_loss_weight"


@dataclass(frozen=True)
class Difference:
    """Two accuracies on the same images, in percent, and their difference in points.

    Attributes:
        first: Accuracy of the one.
        second: Accuracy of the other.
        gap: First less second.
        low: Lower end of the 95 % interval of the gap.
        high: Upper end of it.
        images: How many; the smaller number where they are not paired.
        paired: Whether the images of both are known by name.
        differing: Images on which one of both alone is right; None if they are not paired.
    """

    first: float
    second: float
    gap: float
    low: float
    high: float
    images: int
    paired: bool
    differing: int | None = None

    @property
    def is_decided(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Subject:
    """An evaluated model and how it was trained.

    Attributes:
        evaluation: What was measured.
        config: Settings of its training; empty where its run folder is not here.
    """

    evaluation: Evaluation
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """Folder below `evaluate/`."""
        return self.evaluation.name

    @property
    def part_loss_weight(self) -> float | None:
        """Weight of the part loss; None where the training is unknown or has no such loss."""
        value = ((self.config.get("model") or {}).get("init_args") or {}).get(PART_LOSS)
        return None if value is None else float(value)

    @property
    def seed(self) -> int | None:
        """Seed of the training, where known."""
        value = self.config.get("seed_everything")
        return value if isinstance(value, int) and not isinstance(value, bool) else None


@dataclass(frozen=True)
class Comparison:
    """A model and its baseline.

    Attributes:
        model: Trained with parts where any such was evaluated.
        baseline: Trained without, alike in as many settings as can be; None without one.
        threat: The attack that both are judged by; of the model alone without a baseline. None
            where nothing was attacked.
        attacked: Difference under it; None without a baseline or an image in common.
        others: Differences under the other attacks on enough images, by title.
        clean: Difference without an attack, likewise.
        other_settings: Settings of the training besides the part loss in which they differ.
    """

    model: Subject
    baseline: Subject | None
    threat: ThreatResult | None
    attacked: Difference | None
    others: dict[str, Difference]
    clean: Difference | None
    other_settings: tuple[str, ...]


def find_comparison(runs: Path, evaluations: Sequence[Evaluation]) -> Comparison | None:
    """Which models the report is about; None where none was evaluated.

    Args:
        runs: Folder of all runs.
        evaluations: Evaluated models.

    Raises:
        UserError: If the manifest of an evaluation, or a record of an attack, is damaged.
    """
    subjects = [Subject(one, _config(one, runs)) for one in evaluations if one.threats]
    if not subjects:
        return None
    supervised = [one for one in subjects if one.part_loss_weight]
    supervised.sort(key=lambda one: one.name != MPM.name)
    model = (supervised or subjects)[0]
    plain = [one for one in subjects if one.part_loss_weight == 0 and _seen_alike(model, one)]
    plain = plain if supervised else []
    baseline = min(plain, key=lambda one: len(_differing(model, one)), default=None)
    ours = model.evaluation
    if baseline is None:
        return Comparison(model, None, main_threat([ours]), None, {}, None, ())
    theirs = baseline.evaluation
    threat = main_threat([ours, theirs])
    return Comparison(
        model,
        baseline,
        threat or main_threat([ours]),
        difference(ours, theirs, threat.title) if threat else None,
        _other_differences(ours, theirs, threat),
        difference(ours, theirs, "clean"),
        _differing(model, baseline),
    )


def main_threat(evaluations: Sequence[Evaluation]) -> ThreatResult | None:
    """The strongest attack that all were measured under on enough images, as the first has it.

    AutoAttack goes before its parts, APGD and PGD; the published radius before others; then the
    one that leaves least. Where none has enough images, the one with the most.
    """
    first, *others = evaluations
    found = []
    for threat in first.threats:
        cells = [threat.cell, *(one.threat(threat.title) for one in others)]
        if threat.norm and all(cell.value is not None for cell in cells):
            found.append((min(cell.n or 0 for cell in cells), threat))
    most = max((images for images, _ in found), default=0)
    enough = [threat for images, threat in found if images >= min(ENOUGH, most)]
    return min(enough, key=_weakness, default=None)


def _other_differences(
    first: Evaluation, second: Evaluation, main: ThreatResult | None
) -> dict[str, Difference]:
    titles = [one.title for one in first.threats if one.norm and main and one.title != main.title]
    found = {title: difference(first, second, title) for title in titles}
    return {title: gap for title, gap in found.items() if gap and gap.images >= ENOUGH}


def difference(first: Evaluation, second: Evaluation, title: str) -> Difference | None:
    """How far two models differ under a threat; None if it or every common image is lacking.

    Raises:
        UserError: If a record is damaged.
    """
    outcomes = [_outcomes(one, title) for one in (first, second)]
    if any(one is None for one in outcomes):
        return None
    ours, theirs = (one for one in outcomes if one is not None)
    try:
        row = compare(theirs, ours)
    except UserError:  # both name their images and have none in common
        return None
    low, high = row["ci95"]
    return Difference(
        100 * row["b"]["accuracy"],
        100 * row["a"]["accuracy"],
        100 * row["difference"],
        100 * low,
        100 * high,
        min(row["a"]["n"], row["b"]["n"]),
        row["method"] == "paired",
        row["only_a"] + row["only_b"] if row["method"] == "paired" else None,
    )


def _outcomes(one: Evaluation, title: str) -> Outcomes | None:
    """Images by name from the records; totals of the summary where the records are gone."""
    threat = next((threat for threat in one.threats if threat.title == title), None)
    if threat is None or threat.cell.value is None or not threat.cell.n:
        return None
    if (one.folder / "records").is_dir() and threat.name in threats_of(one.folder):
        try:
            return read_outcomes(one.folder, threat.name)
        except (pa.ArrowException, KeyError) as error:
            folder = one.folder / "records" / threat.name
            raise UserError(
                f"{folder} holds a damaged record ({error}): delete that folder and run make "
                "evaluate again"
            ) from None
    images = threat.cell.n
    return Outcomes(str(one.folder), round(threat.cell.value / 100 * images), images)


def _weakness(threat: ThreatResult) -> tuple[int, bool, int, float]:
    kinds = ("AutoAttack", "AutoAttack-", "APGD", "PGD")
    attack = threat.attack
    if "(" in attack:  # through another gradient path, or of another kind
        rank = len(kinds)
    elif attack in ("AutoAttack", "APGD"):
        rank = kinds.index(attack)
    else:
        rank = next((r for r, kind in enumerate(kinds) if attack.startswith(kind)), len(kinds))
    norm, eps = PUBLISHED_BALL
    elsewhere = threat.norm != norm or abs(threat.eps - eps) > 1e-6
    return rank, elsewhere, -(threat.steps or 0), threat.cell.value or 0.0


def _config(one: Evaluation, runs: Path) -> dict[str, Any]:
    try:
        manifest = Manifest.find(find_model(one.model, runs, one.name))
    except (MissingInputError, UserError):  # gone, or of a version that cannot be read
        return {}
    return manifest.config if manifest else {}


def _seen_alike(first: Subject, second: Subject) -> bool:
    """Whether both evaluations showed the images at one size."""
    ours, theirs = (data_arguments(one.evaluation.folder) for one in (first, second))
    return all(ours.get(name) == theirs.get(name) for name in ("image_size", "resize"))


def _differing(first: Subject, second: Subject) -> tuple[str, ...]:
    """Names of the settings of training, besides the part loss, that are not the same."""
    ours, theirs = (dict(config_leaves(_compared(one.config))) for one in (first, second))
    paths = [path for path in {**ours, **theirs} if ours.get(path) != theirs.get(path)]
    names = dict.fromkeys(path.rsplit(".", 1)[-1] for path in paths)
    return tuple(name for name in names if name != PART_LOSS)


def _compared(config: dict[str, Any]) -> dict[str, Any]:
    trainer = config.get("trainer") or {}
    length = {name: trainer.get(name) for name in ("max_epochs", "max_steps")}
    return {name: config.get(name) for name in ("model", "data", "seed_everything")} | length
