"""What is read back is what was written; another version or a missing entry is one line."""

from pathlib import Path
from typing import Any

import pytest

from datamodules.files.errors import MissingInputError, UserError
from datamodules.files.json_files import read_json, write_json
from pipeline.evaluation.summaries import (
    AttackedImages,
    BoxPrecision,
    DetectionResults,
    GeneralisationSummary,
    MeanRow,
    PartScores,
    PartsUnderAttack,
    RobustnessSummary,
    SetRow,
    ThreatRow,
)
from pipeline.evaluation.summary_file import Summary

THREAT = ThreatRow("pgd", "linf", 4 / 255, 0.5, [0.4, 0.6], 100, {"": 50, "PGD": 50}, True)
IMAGES = AttackedImages("subset.txt", "00", 100, [10, 10])
PARTS = PartsUnderAttack("", "pgd", {"pgd": PartScores(0.6, 0.3, 12, 40)})
SUMMARIES = [
    RobustnessSummary("runs/m", [THREAT], IMAGES, ["WARNING"], PARTS),
    RobustnessSummary("runs/m", [THREAT], IMAGES, [], PartsUnderAttack("no parts")),
    GeneralisationSummary(
        "runs/m",
        [SetRow("din/a", "ood", 0.5, [0.4, 0.6], 10), SetRow("din/b", "ood", missing="gone")],
        [MeanRow("din", "ood", 0.5, [0.4, 0.6], 0.5, 10, 1, 2)],
    ),
    DetectionResults({"clean": BoxPrecision(0.3, 0.5), "A_cls": BoxPrecision(-1.0, -1.0)}, 8),
]


@pytest.mark.parametrize("summary", SUMMARIES)
def test_what_is_written_is_read_back(summary: Summary, tmp_path: Path) -> None:
    summary.write(tmp_path)
    assert type(summary).read(tmp_path) == summary


def test_parts_stand_beside_the_threat_that_says_most(tmp_path: Path) -> None:
    SUMMARIES[0].write(tmp_path)
    parts = read_json(tmp_path / "summary.json", "")["parts"]
    scores = {"clean_miou": 0.6, "adversarial_miou": 0.3, "parts": 12, "images": 40}
    assert parts == {"threat": "pgd", **scores, "threats": {"pgd": scores}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"format_version": 7},
            r"summary\.json has format version 7, .* reads 1: delete it and run make eval",
        ),
        ({"format_version": None}, r"has format version None"),
        ({"threats": [{"name": "pgd"}]}, r"summary\.json lacks 'norm': delete it and run make"),
        ({"parts": {}}, r"summary\.json lacks 'threats'"),
    ],
)
def test_other_content_is_one_line(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    SUMMARIES[0].write(tmp_path)
    path = tmp_path / "summary.json"
    write_json(path, read_json(path, "") | change)
    with pytest.raises(UserError, match=message):
        RobustnessSummary.read(tmp_path)


def test_a_folder_without_summary(tmp_path: Path) -> None:
    assert DetectionResults.find(tmp_path) is None
    with pytest.raises(MissingInputError):
        DetectionResults.read(tmp_path)
