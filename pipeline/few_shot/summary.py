"""`summary.json` of few-shot classification, and the files of comparisons beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pipeline.evaluation.summary_file import Summary, parse_row

REMEDY = "delete it and run make few-shot again"


@dataclass(frozen=True)
class FewShotRow:
    """Mean over the episodes of one setting.

    Attributes:
        view: `image` or `box`.
        shots: labelled images of each class.
        classifier: `nearest_mean` or `linear_probe`.
        accuracy: mean in [0, 1]; of a comparison the difference, in [-1, 1].
        ci95: ends of its 95 % interval over episodes.
        episodes: how many.
    """

    view: str
    shots: int
    classifier: str
    accuracy: float
    ci95: Sequence[float]
    episodes: int


@dataclass(frozen=True)
class EpisodeFacts:
    """What all episodes of a run have in common.

    Attributes:
        way: classes of an episode.
        queries: images of each class to classify.
        episodes: how many.
        seed: of the draw.
        sha256: of their classes and images.
        classes: from how many classes they are drawn.
        images: from how many images.
        trained_classes: how many of the classes are among those that the model's folder says it
            was trained on; None where it says none.
    """

    way: int
    queries: int
    episodes: int
    seed: int
    sha256: str
    classes: int
    images: int
    trained_classes: int | None


@dataclass(frozen=True)
class FewShotSummary(Summary):
    """Few-shot accuracies of a model.

    Attributes:
        model: as the run was told.
        features: which features these are, in words.
        normalised: whether they were brought to length 1.
        drawn: the episodes.
        rows: one for each view, number of shots and classifier.
    """

    remedy: ClassVar[str] = REMEDY

    model: str
    features: str
    normalised: bool
    drawn: EpisodeFacts
    rows: list[FewShotRow]

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Self:
        """The summary from its entries as plain values."""
        return cls(
            content["model"],
            content["features"],
            content["normalised"],
            parse_row(EpisodeFacts, content["drawn"]),
            [parse_row(FewShotRow, row) for row in content["rows"]],
        )


@dataclass(frozen=True)
class FewShotComparison(Summary):
    """Differences of two models on the same episodes.

    Attributes:
        model: name of the one.
        against: name of the other, which is taken away.
        rows: differences of their accuracies.
    """

    file: ClassVar[str] = "comparison.json"
    remedy: ClassVar[str] = REMEDY

    model: str
    against: str
    rows: list[FewShotRow]

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Self:
        """The comparison from its entries as plain values."""
        rows = [parse_row(FewShotRow, row) for row in content["rows"]]
        return cls(content["model"], content["against"], rows)
