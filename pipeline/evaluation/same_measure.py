"""Whether two evaluations measured the same: by what was set, not by the names of the threats."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datamodules.files.json_files import read_json
from pipeline.runs.settings import differences

IMAGES = ("image_size", "resize", "interpolation", "subset")
DRAWS = ("batch_size", "seed")  # other random draws of the same attack


def measured_settings(run: Path) -> dict[str, Any]:
    """What the records of an evaluation depend on; empty where that was not noted.

    Args:
        run: its run folder, or the `records/` in it.

    Raises:
        UserError: if the file is damaged.
    """
    file = (run if run.name == "records" else run / "records") / "settings.json"
    remedy = f"restore it, or delete {file.parent} and run make evaluate again"
    return read_json(file, remedy) if file.is_file() else {}


def other_measures(
    first: Mapping[str, Any], second: Mapping[str, Any], threats: Iterable[str]
) -> list[str]:
    """Names and values of the settings by which two evaluations measured different things.

    Models may differ, and so may the images that were chosen, chunks, batches and seeds.

    Args:
        first: what the records of the one depend on; empty where it is not known.
        second: the same of the other.
        threats: names of the threats that are compared; those that a side does not know are not.
    """
    if not first or not second:
        return []
    known = first.get("threats", {}).keys() & second.get("threats", {}).keys()
    common = [name for name in threats if name in known]
    return differences(_compared(first, common), _compared(second, common))


def _compared(settings: Mapping[str, Any], threats: Iterable[str]) -> dict[str, Any]:
    images = {"interpolation": "bicubic"} | dict(settings)  # the default has no entry
    attacks = {
        name: {key: value for key, value in settings["threats"][name].items() if key not in DRAWS}
        for name in threats
    }
    return {name: images.get(name) for name in IMAGES} | attacks
