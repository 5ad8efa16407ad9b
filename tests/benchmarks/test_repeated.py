"""Benchmarks that are repeated: spreads, quiet and other runs, going on."""

import json
from pathlib import Path

import pytest

from benchmarks import repeated

COUNTING = """
import json, pathlib
count = pathlib.Path("count")
number = int(count.read_text()) + 1 if count.is_file() else 1
count.write_text(str(number))
print("a table")
print(json.dumps({"ratio": number, "equal": number < 3, "mb": {"4": 10 * number}, "name": "x"}))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "benchmarks"
    root.mkdir()
    monkeypatch.setattr(repeated, "FOLDER", root)
    monkeypatch.setattr(repeated, "NAMES", ("counting", "failing"))
    (root / "counting.py").write_text(COUNTING)
    (root / "failing.py").write_text("print('why'); raise SystemExit(3)")
    return root


def test_minimum_median_maximum_and_going_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs.jsonl"
    repeated.main(["counting", "--times=2", f"--out={out}", "--quiet=9"])
    repeated.main(["counting", "--times=3", f"--out={out}", "--quiet=9"])
    assert (tmp_path / "count").read_text() == "3"  # two runs were there
    assert len([json.loads(line) for line in out.read_text().splitlines()]) == 3
    last = capsys.readouterr().out.splitlines()[-3:]
    assert last == [
        "| counting | ratio | 3 | 1 | 2 | 3 |",
        "| counting | equal | 3 | false | false | false |",
        "| counting | mb 4 | 3 | 10 | 20 | 30 |",
    ]


def test_a_failure_is_shown(folder: Path) -> None:
    with pytest.raises(SystemExit, match=r"(?s)why.*failing.py failed with status 3"):
        repeated.main(["failing", "--times=1"])


def test_other_work_is_counted_and_shown_apart() -> None:
    runs = [
        {"benchmark": "b", "others": others, "figures": {"ratio": ratio}}
        for others, ratio in ((0.0, 2), (1.0, 7), (0.05, 4))
    ]
    assert repeated.table(runs, quiet=0.1).splitlines()[2:] == [
        "| b | ratio | 2 | 2 | 3 | 4 |",
        "| b, beside other work | ratio | 1 | 7 | 7 | 7 |",
    ]
    busy, own = repeated.busy_seconds(), repeated.own_seconds()
    sum(i * i for i in range(3_000_000))
    assert repeated.own_seconds() - own > 0.02
    assert repeated.busy_seconds() - busy > 0.02
