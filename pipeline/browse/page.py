"""The page: one entry an image, all of it in one JSON that the filters of the page look through."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datamodules.evaluation.attack_units import answer_name
from datamodules.files.atomic_files import write_text
from pipeline.browse.drawn import PICTURES, Drawn
from pipeline.browse.evaluated import Evaluated
from pipeline.browse.outcomes import Outcome
from pipeline.browse.subjects import Subject
from pipeline.drawing.pages import render_page
from pipeline.report.reading.evaluations import threat_title

INDEX = "index.html"


@dataclass(frozen=True)
class Recorded:
    """What the evaluation recorded of an image under one threat: `Outcome`, classes by name."""

    broken_by: str
    clean: str
    attacked: str


@dataclass(frozen=True)
class PageImage:
    """What the page knows of an image.

    Attributes:
        drawn: its pictures, answers and agreements.
        truth: its true class.
        outcomes: by threat; empty for train images.
    """

    drawn: Drawn
    truth: str
    outcomes: dict[str, Recorded]


@dataclass(frozen=True)
class PageThreat:
    """A threat of the records.

    Attributes:
        name: as in the evaluation.
        title: with norm and radius.
        attacks: whether it changes images.
        right: images that stand, of all that were recorded.
        images: images that were recorded.
    """

    name: str
    title: str
    attacks: bool
    right: int
    images: int


def page_image(
    subject: Subject, drawn: Drawn, outcomes: Mapping[str, Outcome], answers: Sequence[str]
) -> PageImage:
    """The entry of an image.

    Args:
        subject: the image.
        drawn: what was drawn of it.
        outcomes: recorded ones by threat; empty if it was not evaluated.
        answers: names of the classes, or of the groups of a subset.
    """
    recorded = {
        name: Recorded(
            one.broken_by, answer_name(answers, one.clean), answer_name(answers, one.attacked)
        )
        for name, one in outcomes.items()
    }
    return PageImage(drawn, answers[subject.label], recorded)


def page_threats(
    settings: Mapping[str, Any], outcomes: Mapping[str, Mapping[str, Outcome]]
) -> list[PageThreat]:
    """The threats of the records, counted over all images of the evaluation.

    Args:
        settings: what `records/settings.json` says of each threat, by name.
        outcomes: recorded ones by key and threat.
    """
    found = []
    for name in dict.fromkeys(name for row in outcomes.values() for name in row):
        rows = [row[name] for row in outcomes.values() if name in row]
        about = settings.get(name) or {}
        norm, eps = str(about.get("norm") or ""), float(about.get("eps") or 0.0)
        title = threat_title(name, norm, eps)
        right = sum(not one.broken_by for one in rows)
        found.append(PageThreat(name, title if norm else name, bool(norm), right, len(rows)))
    return found


def write_page(
    out: Path,
    evaluated: Evaluated,
    images: Sequence[PageImage],
    threats: Sequence[PageThreat],
    wanted: int,
    notes: Sequence[str],
) -> Path:
    """Writes the page beside the pictures.

    Args:
        out: its folder.
        evaluated: the evaluation.
        images: what was drawn.
        threats: of the records.
        wanted: number of images that were to be drawn.
        notes: what is missing and why, one line each.
    """
    content = {
        "images": [asdict(one) for one in images],
        "threats": [asdict(one) for one in threats],
        "pictures": list(PICTURES.items()),
    }
    page = render_page(
        "browse.html.j2",
        "pipeline.browse",
        content=json.loads(json.dumps(content)),
        model=evaluated.evaluator.model_name,
        folder=str(evaluated.folder),
        attack=evaluated.title,
        threats=threats,
        drawn=len(images),
        wanted=wanted,
        notes=notes,
    )
    write_text(out / INDEX, page)
    return out / INDEX
