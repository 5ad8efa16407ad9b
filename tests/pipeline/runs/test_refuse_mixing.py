from pathlib import Path
from typing import Any

import pytest

from datamodules.files.json_files import write_json
from pipeline.runs.refuse_mixing import refuse_mixing

ORIGIN = {"weights": "abc", "settings": {"eps": 0.1}}


def claim(folder: Path, origin: dict[str, Any], growing: str | None = None) -> dict[str, Any]:
    outputs = (path for path in folder.glob("*") if path.name != "record.json")
    return refuse_mixing(
        folder / "record.json", origin, "give another --out", outputs, growing, ["files"]
    )


def test_an_empty_folder_is_free_and_one_of_the_same_origin_goes_on(tmp_path: Path) -> None:
    assert claim(tmp_path / "new", ORIGIN) == ORIGIN
    write_json(tmp_path / "record.json", {**ORIGIN, "files": ["a"]})
    (tmp_path / "a").touch()
    assert claim(tmp_path, ORIGIN) == {**ORIGIN, "files": ["a"]}


def test_another_origin_is_refused_with_what_differs(tmp_path: Path) -> None:
    write_json(tmp_path / "record.json", ORIGIN)
    other = {"weights": "abd", "settings": {"eps": 0.2}}
    changes = r"\(settings.eps: 0.1 -> 0.2; weights: abc -> abd\): give another --out"
    with pytest.raises(ValueError, match=f"made another way {changes}"):
        claim(tmp_path, other)


def test_of_many_differences_the_first_are_told(tmp_path: Path) -> None:
    write_json(tmp_path / "record.json", {f"set {n}": 0 for n in range(9)})
    changes = r"\(set 0: 0 -> 1; set 1: 0 -> 1; set 2: 0 -> 1; and 6 more\): give another --out"
    with pytest.raises(ValueError, match=changes):
        claim(tmp_path, {f"set {n}": 1 for n in range(9)})


def test_what_only_the_record_says_is_a_difference(tmp_path: Path) -> None:
    write_json(tmp_path / "record.json", {**ORIGIN, "subset": "pin11"})
    with pytest.raises(ValueError, match=r"\(subset: pin11 -> None\)"):
        claim(tmp_path, ORIGIN)
    write_json(tmp_path / "record.json", ORIGIN)
    with pytest.raises(ValueError, match=r"\(subset: None -> pin11\)"):
        claim(tmp_path, {**ORIGIN, "subset": "pin11"})


def test_outputs_of_unknown_origin_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(ValueError, match=r"record\.json is missing.*give another --out"):
        claim(tmp_path, ORIGIN)
    (tmp_path / "record.json").write_text("[]")
    with pytest.raises(ValueError, match=r"record\.json is damaged.*give another --out"):
        claim(tmp_path, ORIGIN)


def test_kinds_of_outputs_may_join_but_not_change(tmp_path: Path) -> None:
    def origin(**kinds: int) -> dict[str, Any]:
        return {
            "model": "abc",
            "threats": {kind: {"steps": steps} for kind, steps in kinds.items()},
        }

    write_json(tmp_path / "record.json", origin(pgd=10, apgd=20))
    assert claim(tmp_path, origin(square=30, pgd=10), "threats") == origin(
        pgd=10, apgd=20, square=30
    )
    with pytest.raises(ValueError, match=r"\(threats.pgd.steps: 10 -> 11\)"):
        claim(tmp_path, origin(pgd=11), "threats")
