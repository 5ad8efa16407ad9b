"""The filters of the page as JavaScript runs them, against the same choices made in Python."""

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.pipeline.commands import PROJECT

NODE = shutil.which("node") or shutil.which("nodejs")
FILTERS = PROJECT / "pipeline" / "browse" / "filters.js"
PROGRAM = """
const { choose, kindsOf } = require(process.argv[1]);
const { images, filters, threats } = JSON.parse(require("fs").readFileSync(0, "utf8"));
console.log(JSON.stringify({
  chosen: filters.map((one) => choose(images, one).map((image) => image.drawn.key)),
  kinds: threats.map((one) => kindsOf(images, one)),
}));
"""
ANY = {"text": "", "truth": "", "split": "", "threat": "", "kind": ""}
ANY |= {"measure": "pseudo", "most": 1, "order": ""}

pytestmark = pytest.mark.skipif(NODE is None, reason="no node, which runs JavaScript")


def random_images(number: int) -> list[dict[str, Any]]:
    rng = Random(0)
    images = []
    for place in range(number):
        truth = rng.choice(["cat", "Dog", "ant<b>"])
        iou = {name: rng.random() for name in ("pseudo", "parts") if rng.random() < 0.7}
        outcomes = {}
        for threat, attacks in (("clean", []), ("aa", ["apgd-ce", "square"])):
            if rng.random() < 0.8:
                outcomes[threat] = {"broken_by": rng.choice(["", "clean", *attacks])}
        key = f"{truth}/{rng.choice('AbC')}_{place}.JPEG"
        drawn = {"key": key, "split": rng.choice(["evaluated", "train"]), "iou": iou}
        images.append({"drawn": drawn, "truth": truth, "outcomes": outcomes})
    return images


def expected(images: list[dict[str, Any]], wanted: dict[str, Any]) -> list[str]:
    kept = []
    for one in images:
        broken_by = one["outcomes"].get(wanted["threat"], {}).get("broken_by")
        kinds = {
            "": True,
            "stands": broken_by == "",
            "wrong": broken_by == "clean",
            "broken": broken_by in ("apgd-ce", "square"),
            "by square": broken_by == "square",
        }
        iou = one["drawn"]["iou"].get(wanted["measure"], 2)
        if (
            wanted["text"].strip().casefold() in one["drawn"]["key"].casefold()
            and wanted["truth"] in ("", one["truth"])
            and wanted["split"] in ("", one["drawn"]["split"])
            and kinds[wanted["kind"]]
            and (wanted["most"] == 1 or iou <= wanted["most"])
        ):
            kept.append(one)
    if wanted["order"] == "iou":
        kept.sort(key=lambda one: one["drawn"]["iou"].get(wanted["measure"], 2))
    if wanted["order"] == "name":
        kept.sort(key=lambda one: one["drawn"]["key"])
    return [one["drawn"]["key"] for one in kept]


def run_filters(images: list[dict[str, Any]], filters: list[dict[str, Any]]) -> dict[str, Any]:
    content = {"images": images, "filters": filters, "threats": ["clean", "aa", "none"]}
    done = subprocess.run(
        [str(NODE), "-e", PROGRAM, str(FILTERS)],
        input=json.dumps(content),
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_filters_choose_what_python_chooses() -> None:
    images = random_images(120)
    rng = Random(1)
    filters = [dict(ANY)]
    for name, values in (
        ("text", ["b_", "JPEG", " a_1", "nothing of the kind"]),
        ("truth", ["cat", "ant<b>"]),
        ("split", ["train"]),
        ("most", [0, 0.3]),
        ("order", ["iou", "name"]),
    ):
        filters += [ANY | {name: value} for value in values]
    for threat in ("clean", "aa"):
        kinds = ("stands", "wrong", "broken", "by square")
        filters += [ANY | {"threat": threat, "kind": kind} for kind in kinds]
    alone = list(filters)
    for _ in range(60):  # several at a time
        mixed = {name: rng.choice(alone)[name] for name in ANY}
        filters.append(mixed | {"threat": rng.choice(["clean", "aa"])})
    chosen = run_filters(images, filters)["chosen"]
    assert chosen == [expected(images, one) for one in filters]
    assert len({len(one) for one in chosen}) > 15  # they do filter


def test_kinds_of_outcome_are_counted() -> None:
    images = random_images(120)
    outcomes = [one["outcomes"]["aa"]["broken_by"] for one in images if "aa" in one["outcomes"]]
    count = Counter(outcomes)
    clean, attacked, none = run_filters(images, [])["kinds"]
    assert {one["kind"]: one["images"] for one in attacked} == {
        "stands": count[""],
        "wrong": count["clean"],
        "broken": count["apgd-ce"] + count["square"],
        "by apgd-ce": count["apgd-ce"],
        "by square": count["square"],
    }
    assert [one["kind"] for one in clean] == ["stands", "wrong"]
    assert none == []


def test_the_program_is_the_page_s_own(tmp_path: Path) -> None:
    """Jinja would take some signs of JavaScript for its own."""
    text = FILTERS.read_text() + FILTERS.with_name("page.js").read_text()
    assert not any(sign in text for sign in ("{{", "{%", "{#"))
