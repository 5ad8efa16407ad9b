"""`summary.json` of the evaluations and `human_alignment.json`: one writer and one reader each."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Self

from pipeline.evaluation.certified import CertifiedRow
from pipeline.evaluation.summary_file import Summary, parse_row


@dataclass(frozen=True)
class ThreatRow:
    """Accuracy under one threat.

    Attributes:
        name: of the threat in the configuration.
        norm: of the perturbation, such as `linf`; None for none.
        eps: radius of the ball.
        accuracy: in [0, 1].
        ci95: ends of its 95 % interval.
        n: number of images.
        broken_by: images by the attack that broke them, `clean` before any and `""` none.
        early: whether a stopping rule ended the evaluation.
    """

    name: str
    norm: str | None
    eps: float
    accuracy: float
    ci95: Sequence[float]
    n: int
    broken_by: dict[str, int] = field(default_factory=dict)
    early: bool = False


@dataclass(frozen=True)
class AttackedImages:
    """The images of a robustness evaluation: file of the list, its hash, numbers."""

    file: str
    sha256: str
    images: int
    per_class: Sequence[int]


@dataclass(frozen=True)
class PartScores:
    """Mean IoU in [0, 1] of clean and adversarial part maps, over how many parts and images."""

    clean_miou: float
    adversarial_miou: float
    parts: int
    images: int


@dataclass(frozen=True)
class PartsUnderAttack:
    """Part maps under attack.

    Attributes:
        missing: why they were not measured; empty if they were.
        threat: the one that says most of the parts.
        threats: scores by threat.
    """

    missing: str = ""
    threat: str = ""
    threats: dict[str, PartScores] = field(default_factory=dict)

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Self:
        """From plain values."""
        if "missing" in content:
            return cls(content["missing"])
        scores = {name: parse_row(PartScores, row) for name, row in content["threats"].items()}
        return cls("", content["threat"], scores)

    def content(self) -> dict[str, Any]:
        """As plain values, the scores of `threat` beside its name."""
        if self.missing:
            return {"missing": self.missing}
        threats = {name: asdict(scores) for name, scores in self.threats.items()}
        return {"threat": self.threat, **threats[self.threat], "threats": threats}


@dataclass(frozen=True)
class RobustnessSummary(Summary):
    """Accuracies under attack.

    Attributes:
        model: what was evaluated, as the run was told.
        threats: a row each.
        subset: the images.
        warnings: what makes the outcome doubtful, one line each.
        parts: mean IoU of the part maps.
        certified: lower bounds of smoothed classifiers; what was written before there were any
            has no such entry.
    """

    model: str
    threats: list[ThreatRow]
    subset: AttackedImages
    warnings: list[str]
    parts: PartsUnderAttack
    certified: list[CertifiedRow] = field(default_factory=list)

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Self:
        """The summary from its entries as plain values."""
        return cls(
            content["model"],
            [parse_row(ThreatRow, row) for row in content["threats"]],
            parse_row(AttackedImages, content["subset"]),
            list(content["warnings"]),
            PartsUnderAttack.parse(content["parts"]),
            [CertifiedRow.parse(row) for row in content.get("certified", [])],
        )

    def content(self) -> dict[str, Any]:
        """Its entries as plain values."""
        return asdict(self) | {"parts": self.parts.content()}


@dataclass(frozen=True)
class SetRow:
    """Accuracy on one evaluation set.

    Attributes:
        name: of the set, such as `din/sketch`.
        table: what it belongs to, such as `ood`.
        accuracy: in [0, 1]; None where it was not measured.
        ci95: ends of its 95 % interval.
        n: number of images.
        missing: why it was not measured; empty if it was.
        figures: what else the set tells, such as `shape_bias`.
    """

    name: str
    table: str
    accuracy: float | None = None
    ci95: Sequence[float] | None = None
    n: int = 0
    missing: str = ""
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class MeanRow:
    """Unweighted mean of the accuracies on the sets of a family.

    Attributes:
        name: first word of the sets' names.
        table: what they belong to.
        accuracy: in [0, 1].
        ci95: ends of its 95 % interval; an image in several sets is one draw, see `set_mean`, but
            with fewer than 30 images the sets count as independent.
        pooled: accuracy over all images.
        n: number of images.
        measured: how many of the sets are in it.
        sets: number of sets.
    """

    name: str
    table: str
    accuracy: float
    ci95: Sequence[float]
    pooled: float
    n: int
    measured: int
    sets: int


@dataclass(frozen=True)
class GeneralisationSummary(Summary):
    """Accuracies without an attack: the model as the run was told, sets, means of families."""

    model: str
    sets: list[SetRow]
    means: list[MeanRow]

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Self:
        """The summary from its entries as plain values."""
        sets = [parse_row(SetRow, row) for row in content["sets"]]
        return cls(content["model"], sets, [parse_row(MeanRow, row) for row in content["means"]])


@dataclass(frozen=True)
class BoxPrecision:
    """Box AP over IoU 0.50 to 0.95 and at 0.50, in [0, 1]; -1 without ground truth."""

    AP: float
    AP50: float


@dataclass(frozen=True)
class DetectionResults(Summary):
    """Precision of a downstream detector: by attack (`clean` for none), number of images."""

    remedy: ClassVar[str] = "delete it and run make downstream-detection again"

    precisions: dict[str, BoxPrecision]
    images: int

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Self:
        """The summary from its entries as plain values."""
        rows = {
            name: parse_row(BoxPrecision, row) for name, row in content.items() if name != "images"
        }
        return cls(rows, content["images"])

    def content(self) -> dict[str, Any]:
        """Its entries as plain values."""
        rows = {name: asdict(precision) for name, precision in self.precisions.items()}
        return {**rows, "images": self.images}


@dataclass(frozen=True)
class AlignmentRow:
    """How alike a decision maker and people err.

    Attributes:
        name: `humans` or a model.
        experiments: by name the three metrics and `ood_accuracy`.
        of: number of experiments.
        missing: by experiment, why it was not compared.
        mean: of the figures over the experiments, None without any.
    """

    name: str
    experiments: dict[str, dict[str, float]]
    of: int
    missing: dict[str, str]
    mean: dict[str, float] | None


@dataclass(frozen=True)
class HumanAlignment(Summary):
    """Models beside people.

    Attributes:
        experiments: those with people, of the 17.
        absent: those without.
        rows: people, then each model.
        conditions: of each experiment.
    """

    file: ClassVar[str] = "human_alignment.json"
    remedy: ClassVar[str] = "compare with the human decisions again"

    experiments: list[str]
    absent: list[str]
    rows: list[AlignmentRow]
    conditions: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Self:
        """The file from its entries as plain values."""
        rows = [parse_row(AlignmentRow, row) for row in content["rows"]]
        return cls(content["experiments"], content["absent"], rows, content["conditions"])
