"""What the evaluation of a model left behind, as far as it was run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.evaluation.certified import CertifiedRow
from pipeline.evaluation.decisions import FILE as DECISIONS
from pipeline.evaluation.decisions import stopped_threats
from pipeline.evaluation.same_measure import measured_settings
from pipeline.evaluation.summaries import (
    AlignmentRow,
    GeneralisationSummary,
    HumanAlignment,
    MeanRow,
    PartsUnderAttack,
    RobustnessSummary,
    SetRow,
    ThreatRow,
)
from pipeline.report.cells import Cell, share_cell
from pipeline.runs.stages import EVALUATION, GENERALISATION

NORMS = {"linf": "l∞", "l1": "l1", "l2": "l2"}
PLAIN_ATTACKS = ("PGD", "APGD", "AutoAttack", "Square")
APGD_STEPS = 100  # by default, as in AutoAttack
CERTIFIED = "certified"  # folder of randomised smoothing beside the attacks


@dataclass(frozen=True)
class ThreatResult:
    """Accuracy under one threat model.

    Attributes:
        name: Its name in the configuration.
        attack: The attack as the report names it, such as `AutoAttack` or `PGD20`.
        norm: Norm of the perturbation; empty for none.
        eps: Radius, in [0, 1] pixel units; 0 for none.
        steps: Steps of a gradient attack, where known.
        cell: Accuracy in percent.
        broken_by: Images by what broke them (`""` stand, `clean` were wrong before); may be empty.
        stopped_by: The evaluation that a comparison with ended it; empty if none did.
    """

    name: str
    attack: str
    norm: str
    eps: float
    steps: int | None
    cell: Cell
    broken_by: dict[str, int]
    stopped_by: str = ""

    @property
    def title(self) -> str:
        """Attack, norm and radius; the same threat has the same title however it is spelt."""
        return threat_title(self.attack, self.norm, self.eps)


@dataclass(frozen=True)
class Evaluation:
    """One evaluated model.

    Attributes:
        name: Folder below `evaluate/`.
        folder: That folder.
        model: What was evaluated, as the run was told.
        threats: Attacks; empty when none were run.
        sets: Rows of the generalisation by name of the set; empty when it was not run.
        means: Rows of its families of sets by name, such as `din`.
        parts: Part maps under attack.
        warnings: What makes the outcome doubtful.
        subsets: Attacks within a subset of the classes, by its name.
        certified: Lower bounds of classifiers smoothed from the model.
    """

    name: str
    folder: Path
    model: str
    threats: tuple[ThreatResult, ...]
    sets: dict[str, SetRow]
    means: dict[str, MeanRow]
    parts: PartsUnderAttack
    warnings: tuple[str, ...]
    subsets: "dict[str, Evaluation]" = field(default_factory=dict)
    certified: tuple[CertifiedRow, ...] = ()

    def threat(self, title: str) -> Cell:
        """The accuracy under a threat, or why there is none."""
        for threat in self.threats:
            if threat.title == title:
                return threat.cell
        reason = "no such threat in this evaluation" if self.threats else "no attack"
        return Cell(note=f"not run: {reason}, see make evaluate")

    def measured_set(self, name: str) -> Cell:
        """The accuracy on a set (or a family of sets), or why there is none."""
        family = self.means.get(name)
        if family and family.measured < family.sets:
            part = f"{family.measured} of its {family.sets} sets were measured"
            return Cell(note=f"only {part}, their mean is {family.accuracy:.1%}")
        if row := self.sets.get(name) or family:
            return share_cell(row)
        members = [row for key, row in self.sets.items() if key.startswith(f"{name}/")]
        lacking = [row for row in members if row.accuracy is None]
        if lacking:
            return share_cell(lacking[0])
        if members:
            return Cell(note=f"only {members[0].name} was measured")
        reason = "no such set in this evaluation" if self.sets else "no generalisation sets"
        return Cell(note=f"not run: {reason}, see make evaluate")


def threat_title(attack: str, norm: str, eps: float) -> str:
    """Title of a threat: `clean`, or attack, norm and radius."""
    if not norm or not eps:
        return "clean"
    size = f"{eps * 255:.4g}/255" if norm == "linf" else f"{eps:.4g}"
    return f"{attack} {NORMS.get(norm, norm)} {size}"


def evaluation_folders(runs: Path) -> list[Path]:
    """Folders below `evaluate/` with any summary, by name."""
    found = (runs / EVALUATION.name).glob("*")
    kinds = ["summary.json", "subsets/*/summary.json"]
    kinds += [f"{name}/summary.json" for name in (GENERALISATION.name, CERTIFIED)]
    return sorted(path for path in found if any(any(path.glob(kind)) for kind in kinds))


def read_evaluation(folder: Path) -> Evaluation:
    """Reads the summaries of one evaluated model.

    Args:
        folder: `RUNS/evaluate/<model>`.

    Raises:
        UserError: If a summary is damaged or lacks a key.
    """
    attacks = RobustnessSummary.find(folder)
    smoothed = RobustnessSummary.find(folder / CERTIFIED)
    general = GeneralisationSummary.find(folder / GENERALISATION.name)
    records = measured_settings(folder)
    settings = records.get("threats", {})
    inner = sorted(path.parent for path in folder.glob("subsets/*/summary.json"))
    subsets = {path.name: read_evaluation(path) for path in inner}
    rows = attacks.threats if attacks else []
    stopped = stopped_threats(folder)
    warnings = list(attacks.warnings) if attacks else []
    warnings += [_early_end(row, stopped.get(row.name, "")) for row in rows if row.early]
    warnings += [f"{CERTIFIED}: {line}" for line in (smoothed.warnings if smoothed else ())]
    if records.get("subset") and folder.parent.name != "subsets":
        name = records["subset"].split()[0]
        warnings.append(f"attacked within the classes of {name} alone: its place is subsets/{name}")
    warnings += [f"{name}: {line}" for name, one in subsets.items() for line in one.warnings]
    threats = tuple(
        _threat(row, settings.get(row.name, {}), stopped.get(row.name, "")) for row in rows
    )
    models = [one.model for one in (attacks, general, smoothed, *subsets.values()) if one]
    not_run = PartsUnderAttack("not run: the evaluation measured no part maps")
    return Evaluation(
        folder.name,
        folder,
        models[0],
        _distinct(threats),
        {row.name: row for row in (general.sets if general else ())},
        {row.name: row for row in (general.means if general else ())},
        attacks.parts if attacks else not_run,
        tuple(warnings),
        subsets,
        tuple(row for one in (attacks, smoothed) if one for row in one.certified),
    )


def _early_end(row: ThreatRow, stopped_by: str) -> str:
    ended = f"{row.name}: ended after {row.n} images"
    if not stopped_by:
        return f"{ended}, its interval was tight enough"
    return (
        f"{ended}, when a comparison with {stopped_by} was decided: its intervals are too tight "
        f"and too far from 0, those in {DECISIONS} hold at any time"
    )


def _threat(row: ThreatRow, settings: dict[str, Any], stopped_by: str) -> ThreatResult:
    norm = (row.norm or "").lower().replace("_", "")
    attack = _attack_name(row.name, settings)
    steps = settings.get("steps")
    cell = share_cell(row)
    return ThreatResult(row.name, attack, norm, row.eps, steps, cell, row.broken_by, stopped_by)


def _attack_name(name: str, settings: dict[str, Any]) -> str:
    """From the settings of the records, else from the first word of the threat's name."""
    if not settings:
        first = name.replace("-", "_").split("_")[0]
        return {"autoattack": "AutoAttack", "aa": "AutoAttack"}.get(first.lower(), first.upper())
    attack = str(settings["attack"])
    steps = settings.get("steps", "")
    if attack == "PGD" or (attack == "APGD" and steps != APGD_STEPS):
        attack += str(steps)
    elif attack == "AutoAttack" and settings.get("version", "standard") != "standard":
        attack += f"-{'+'.join(settings.get('attacks') or [settings['version']])}"
    elif attack not in PLAIN_ATTACKS and name.lower() != attack.lower():
        attack += f" ({name})"
    through = settings.get("through", "auto")
    return attack if through in ("auto", "forward") else f"{attack} ({through})"


def _distinct(threats: tuple[ThreatResult, ...]) -> tuple[ThreatResult, ...]:
    """Of threats with one title the later ones carry their name."""
    titles: set[str] = set()
    found = []
    for threat in threats:
        if threat.title in titles:
            threat = ThreatResult(**{**vars(threat), "attack": f"{threat.attack} ({threat.name})"})
        titles.add(threat.title)
        found.append(threat)
    return tuple(found)


def read_alignment(runs: Path, evaluations: list[Evaluation]) -> dict[str, AlignmentRow]:
    """Rows of every `human_alignment.json` by name of the decision maker.

    Looked for in `RUNS/human_alignment/`, in the folder of each evaluated model and in its
    `generalisation/`.

    Raises:
        UserError: If a file is damaged.
    """
    folders = [runs / "human_alignment"]
    folders += [one.folder / part for one in evaluations for part in (".", GENERALISATION.name)]
    files = filter(None, map(HumanAlignment.find, folders))
    return {row.name: row for one in files for row in one.rows}


def alignment_plots(runs: Path) -> dict[str, bytes]:
    """The SVG plots that the comparison with people left, by title."""
    folder = runs / "human_alignment"
    return {path.stem.replace("_", " "): path.read_bytes() for path in sorted(folder.glob("*.svg"))}
