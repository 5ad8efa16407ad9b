"""Recorded outcomes by image, and the order in which images are shown."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.files.errors import UserError
from modules.attacks.traced_autoattack import STANDING, WRONG_BEFORE
from pipeline.evaluation.outcome_tables import threats_of

COLUMNS = ("key", "broken_by", "clean_prediction", "adversarial_prediction")


@dataclass(frozen=True)
class Outcome:
    """What the evaluation recorded of one image under one threat.

    Attributes:
        broken_by: attack that broke it, `""` if it stands, `clean` if it was wrong before any.
        clean: predicted class before the attack.
        attacked: predicted class under it.
    """

    broken_by: str
    clean: int
    attacked: int


def read_outcomes(run: Path) -> dict[str, dict[str, Outcome]]:
    """Outcomes of an evaluation by key and threat, threats by name.

    Args:
        run: its run folder; units that are not done yet are left out.

    Raises:
        MissingInputError: if it holds no records.
        UserError: if a record is damaged or there is none yet.
    """
    found: dict[str, dict[str, Outcome]] = {}
    for threat in threats_of(run):
        for file in sorted((run / "records" / threat).glob("[!.]*.parquet")):
            try:
                columns = pq.read_table(file, columns=list(COLUMNS)).to_pydict()
            except (OSError, pa.ArrowException) as error:
                line = (str(error).splitlines() or [""])[0]
                raise UserError(
                    f"{file} is damaged ({line}): delete it and run make evaluate again"
                ) from None
            for key, *values in zip(*(columns[name] for name in COLUMNS), strict=True):
                found.setdefault(key, {})[threat] = Outcome(*values)
    if not found:
        raise UserError(f"{run} has no records yet: run make evaluate first")
    return found


def kind_of(outcomes: Mapping[str, Outcome]) -> str:
    """One word for all outcomes of an image: the first attack that broke it goes before others."""
    broken = [f"{threat}/{one.broken_by}" for threat, one in outcomes.items() if one.broken_by]
    if any(one.broken_by == WRONG_BEFORE for one in outcomes.values()):
        return WRONG_BEFORE
    return broken[0] if broken else STANDING


def spread(keys: Iterable[str], kinds: Mapping[str, Sequence[Hashable]], seed: int) -> list[str]:
    """Orders images so that every beginning of the list has as many of each kind as it can.

    Args:
        keys: of the images.
        kinds: of each image what it is to be spread over, the most important first, such as
            outcome and class.
        seed: of the order within a kind.
    """
    shuffled = sorted(set(keys))
    np.random.default_rng(seed).shuffle(shuffled)
    return _in_turn(shuffled, kinds, 0)


def _in_turn(keys: list[str], kinds: Mapping[str, Sequence[Hashable]], depth: int) -> list[str]:
    if not keys or depth == len(kinds[keys[0]]):
        return keys
    groups: dict[Hashable, list[str]] = {}
    for key in keys:
        groups.setdefault(kinds[key][depth], []).append(key)
    turns = zip_longest(*(_in_turn(group, kinds, depth + 1) for group in groups.values()))
    return [key for turn in turns for key in turn if key is not None]
