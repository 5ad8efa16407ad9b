"""The guard against mixing outputs of different origin in one folder."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from datamodules.files.errors import UserError
from datamodules.files.json_files import read_json
from pipeline.runs.settings import differences

SHOWN = 3  # differences in a message: another ImageNet-C is one in each of 75 sets


def refuse_mixing(
    record: Path,
    origin: Mapping[str, Any],
    remedy: str,
    outputs: Iterable[Path] = (),
    growing: str | None = None,
    results: Collection[str] = (),
) -> dict[str, Any]:
    """Refuses to add to outputs that were made another way.

    Args:
        record: JSON file that says how the outputs of its folder were made; need not exist.
        origin: what decides the new outputs.
        remedy: what to do about outputs that were made another way.
        outputs: what must not be there without the record.
        growing: entry of `origin` that maps kinds of outputs to how they are made; kinds that only
            one side has are no contradiction.
        results: entries of the record that say what came out; they are not compared.

    Returns:
        What the record has to say from now on.

    Raises:
        UserError: naming what differs, or if it is not known how the outputs were made.
    """
    if not record.is_file():
        if any(outputs):
            raise UserError(
                f"{record} is missing, so how its folder's content was made is not known: {remedy}"
            )
        return dict(origin)
    old, new = read_json(record, remedy), dict(origin)
    recorded = {name: value for name, value in old.items() if name not in results}
    if growing is not None:
        kinds = old.get(growing) or {}
        recorded[growing], new[growing] = new[growing] | kinds, kinds | new[growing]
    if changed := differences(recorded, new):
        more = [f"and {len(changed) - SHOWN} more"] if len(changed) > SHOWN else []
        said = "; ".join(changed[:SHOWN] + more)
        raise UserError(f"{record.parent} was made another way ({said}): {remedy}")
    return old | new
