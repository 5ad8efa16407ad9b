"""Whether an evaluation's data has the classes of its model, and names its parts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.errors import UserError
from datamodules.files.json_files import read_json
from modules.networks.class_groups import ClassGroups
from modules.weights.classifier_folder import EXPORT, locate
from modules.weights.classifier_sources import ClassifierSource, with_parts

VOCABULARY = "vocabulary.json"  # of a run folder


def refuse_other_classes(module: Any, data: Any) -> None:
    """Refuses a model and data that do not fit, before anything long starts.

    Numbers of classes that are known to differ are refused when the module is made.

    Args:
        module: evaluator with `network`, `model_name` and `source`.
        data: its data, with `classes`, `least_classes` and `vocabulary`.

    Raises:
        UserError: if a label is beyond the model's classes, the model records other names than
            the data has, or it has parts while no annotations were given that name them.
    """
    name, source = module.model_name, module.source
    network = module.network
    network = network.network if isinstance(network, ClassGroups) else network
    number = getattr(network, "num_classes", None)
    if isinstance(number, int) and number < data.least_classes:
        raise UserError(
            f"the list has label {data.least_classes - 1}, model {name} has {number} classes, "
            "which count from 0: give the list of the data it was trained on"
        )
    recorded = recorded_classes(source)
    if recorded is not None and data.classes is not None:
        _compare(name, recorded, data.classes)
    if data.vocabulary.num_parts == 0 and _has_parts(source, network):
        raise UserError(
            f"model {name} has parts: set PINPP= (data.init_args.pinpp) to the folder with the "
            "annotations that it was trained with"
        )


def recorded_classes(source: ClassifierSource | None) -> tuple[str, ...] | None:
    """Names of a model's classes by label, where its folder records them; else None.

    A run folder has them in `vocabulary.json`, a timm folder may have `label_names`.

    Args:
        source: as for `open_classifier`.

    Raises:
        MissingInputError: if there is no such model.
        UserError: if the file that records them is damaged.
    """
    if not isinstance(source, str | Path):
        return None
    folder, _ = locate(Path(source))
    run = folder.parent if folder.name == EXPORT else folder
    if (run / VOCABULARY).is_file():
        return PartVocabulary.load(run / VOCABULARY).objects
    if not (folder / "config.json").is_file():
        return None
    found: Any = read_json(folder / "config.json", "export it anew").get("label_names")
    is_list = isinstance(found, list) and all(isinstance(name, str) for name in found)
    return tuple(found) if is_list else None


def _compare(name: str, recorded: Sequence[str], classes: Sequence[str]) -> None:
    pairs = enumerate(zip(recorded, classes, strict=False))
    other = next((f"class {i} is {a}, of the data {b}" for i, (a, b) in pairs if a != b), "")
    if not other and len(recorded) != len(classes):
        other = f"it has {len(recorded)} classes, the data {len(classes)}"
    if other:
        raise UserError(f"model {name} was trained on other classes ({other}): give their data")


def _has_parts(source: ClassifierSource | None, network: nn.Module) -> bool:
    try:
        with_parts(network if source is None else source, network)
    except UserError:  # says why it has none
        return False
    return True
