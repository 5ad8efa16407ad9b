import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules.evaluation.attack_units import RECORD_SCHEMA
from pipeline.browse.build import browse

BROKEN_BY = ("", "clean", "apgd-ce", "square", "apgd-ce")


@dataclass(frozen=True)
class Browsed:
    """A page of a finished evaluation: its folder, the evaluation's, what the page's JSON says."""

    page: Path
    evaluation: Path
    content: dict[str, Any]


def content_of(page: Path) -> dict[str, Any]:
    text = (page / "index.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    content: dict[str, Any] = json.loads(found[1])
    return content


@pytest.fixture(scope="session")
def evaluation(finished_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished evaluation with AutoAttack's outcomes of some images beside it."""
    folder = tmp_path_factory.mktemp("browse") / "runs" / "evaluate" / "stage3_mpm"
    shutil.copytree(finished_runs / "evaluate" / "stage3_mpm", folder)
    clean = sorted((folder / "records" / "clean").glob("*.parquet"))
    rows = [row for file in clean for row in pq.read_table(file).to_pylist()][:9]
    for place, row in enumerate(rows):
        broken_by = BROKEN_BY[place % len(BROKEN_BY)]
        row |= {"broken_by": broken_by, "robust": not broken_by, "adversarial_prediction": 0}
    (folder / "records" / "autoattack").mkdir()
    table = pa.Table.from_pylist(rows, schema=RECORD_SCHEMA)
    pq.write_table(table, folder / "records" / "autoattack" / "00000.parquet")
    path = folder / "records" / "settings.json"
    settings = json.loads(path.read_text())
    settings["threats"]["autoattack"] = {"attack": "AutoAttack", "norm": "linf", "eps": 4 / 255}
    path.write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="session")
def browsed(evaluation: Path, shapes_root: Path) -> Browsed:
    """The page with all images, pictures under attack of the evaluation's own short PGD."""
    browse(evaluation, threat="pgd", pinpp_val=shapes_root / "val_parts")
    page = evaluation.parent.parent / "browse" / "stage3_mpm"
    return Browsed(page, evaluation, content_of(page))
