"""Outcomes of attacks as files: our run folders, tables of other projects, AutoAttack logs."""

import csv
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from datamodules.files.errors import MissingInputError, UserError

TRUE, FALSE = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")


@dataclass(frozen=True)
class Outcomes:
    """Which images stood an attack.

    Attributes:
        source: what they were read from, and the threat where it is known.
        robust: by key; empty if the source has totals only.
        right: number of images that stood.
        total: number of images.
    """

    source: str
    right: int
    total: int
    robust: dict[str, bool] = field(default_factory=dict)


def threats_of(run: Path) -> list[str]:
    """Threats that a run folder, or the `records/` in it, holds records of."""
    return sorted(
        folder.name for folder in _records(run).iterdir() if any(folder.glob("[!.]*.parquet"))
    )


def read_outcomes(path: Path, threat: str | None = None, images: int | None = None) -> Outcomes:
    """Reads the outcomes of one attack.

    Args:
        path: run folder of our evaluation; CSV or Parquet with columns `key` and `robust`; JSON,
            `{key: robust}` or a list of such rows; or the log of an AutoAttack run.
        threat: which one of a run folder; may be left out if it has one beside `clean`.
        images: number of images of a log that does not say it.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if it holds no outcomes, or those of several threats and none is chosen.
    """
    if path.is_dir():
        name = _choose(path, threat)
        files = sorted((_records(path) / name).glob("[!.]*.parquet"))
        rows = [row for file in files for row in pq.read_table(file).to_pylist()]
        return _by_key(f"{path} ({name})", ((row["key"], row["robust"]) for row in rows))
    if not path.is_file():
        raise MissingInputError(f"{path} does not exist: give a run folder, table or log")
    if path.suffix == ".parquet":
        return _by_key(str(path), _pairs(path, pq.read_table(path).to_pylist()))
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _by_key(str(path), _pairs(path, list(csv.DictReader(file))))
    if path.suffix == ".json":
        try:
            content = json.loads(path.read_bytes())
        except ValueError as error:
            raise UserError(f"{path} is no JSON ({error})") from None
        pairs = content.items() if isinstance(content, dict) else _pairs(path, content)
        return _by_key(str(path), pairs)
    return _read_log(path, images)


def _records(run: Path) -> Path:
    folder = run if run.name == "records" else run / "records"
    if not folder.is_dir():
        raise MissingInputError(f"{run} holds no records/: give a run folder of make evaluate")
    return folder


def _choose(run: Path, threat: str | None) -> str:
    known = threats_of(run)
    attacks = [name for name in known if name != "clean"]
    if threat is None and len(attacks) == 1:
        return attacks[0]
    if threat not in known:
        raise UserError(f"{run} has the threats {', '.join(known)}, not {threat}: choose --threat")
    return threat


def _pairs(path: Path, rows: Any) -> list[tuple[str, Any]]:
    try:
        return [(str(row["key"]), row["robust"]) for row in rows]
    except (KeyError, TypeError):
        raise UserError(f"{path} has no rows with the columns key and robust") from None


def _by_key(source: str, pairs: Iterable[tuple[str, Any]]) -> Outcomes:
    robust: dict[str, bool] = {}
    for key, value in pairs:
        text = str(value).strip().lower()
        if text not in TRUE + FALSE:
            raise UserError(f"{source}: robust of {key} is '{value}', not true or false")
        if key in robust:
            raise UserError(f"{source}: {key} occurs twice")
        robust[key] = text in TRUE
    if not robust:
        raise UserError(f"{source} holds no outcomes")
    return Outcomes(source, sum(robust.values()), len(robust), robust)


def _read_log(path: Path, images: int | None) -> Outcomes:
    """Totals of a log of auto-attack or pyautoattack, which both print the same lines.

    Logs give no number of images. It is inferred from the first attack: its batches name how many
    images it attacked, which are those that were right, and the initial accuracy is their share.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is neither a table nor a text log") from None
    initial = re.search(r"initial accuracy: ([\d.]+)\s?%", text)
    shares = re.findall(r"robust accuracy(?: after [\w-]+)?: ([\d.]+)\s?%", text)
    if initial is None or not shares:
        raise UserError(
            f"{path} is no AutoAttack log: it lacks 'initial accuracy: ...%' or "
            "'robust accuracy: ...%'"
        )
    if images is None:
        batches = re.findall(
            r"([\w-]+) - (\d+)/\d+ - \d+ out of (\d+) successfully perturbed", text
        )
        attacked = sum(int(number) for name, _, number in batches if name == batches[0][0])
        if not attacked or not float(initial[1]):
            raise UserError(f"{path} does not tell the number of images: give it")
        images = round(attacked * 100 / float(initial[1]))
    return Outcomes(str(path), round(float(shares[-1]) / 100 * images), images)
