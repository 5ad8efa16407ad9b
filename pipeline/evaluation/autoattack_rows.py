"""`summary.csv`: one line for each standard AutoAttack of an evaluation, to join with others."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from timm.data import ImageNetInfo

from datamodules.evaluation.attack_units import AttackUnit, wilson_interval
from datamodules.files.atomic_files import write_text
from datamodules.robustness import RobustnessDataModule
from modules.attacks.gradient_paths import judgment_blocks
from modules.attacks.threats import AutoAttack, Threat
from modules.networks.class_groups import ClassGroups
from modules.robustness_evaluator import RobustnessEvaluator
from modules.weights.classifier_folder import architecture_of

FILE = "summary.csv"
IMAGENET = "imagenet"


@dataclass(frozen=True)
class AutoAttackRow:
    """One line of `summary.csv`; shares are in [0, 1], of the same images before and under attack.

    Attributes:
        model: as the run was told.
        architecture: empty where it is not known.
        dataset: `imagenet` for its 1,000 classes, else the folder of the images; then the subset.
        norm: of the ball; empty where there was no standard AutoAttack.
        eps: its radius, `4/255` where it is so many steps of a pixel; else as `norm`.
        clean: accuracy before the attack.
        clean_low: lower end of its 95 % interval.
        clean_high: upper end.
        autoattack: accuracy under the attack; as `norm`.
        autoattack_low: lower end of its 95 % interval.
        autoattack_high: upper end.
        images: number of images.
    """

    model: str
    architecture: str
    dataset: str
    norm: str
    eps: str
    clean: float
    clean_low: float
    clean_high: float
    autoattack: float | None
    autoattack_low: float | None
    autoattack_high: float | None
    images: int


def autoattack_rows(
    root: Path,
    module: RobustnessEvaluator,
    data: RobustnessDataModule,
    units: Sequence[AttackUnit],
) -> dict[str, AutoAttackRow]:
    """A row for each threat that is a standard AutoAttack; without one, of the first threat.

    Args:
        root: run folder with all records.
        module: the evaluator.
        data: its images.
        units: what the result rests on.
    """
    names = [name for name in data.images if is_standard(module.threats[name], module)]
    return {
        name: _row(module, data, module.threats[name] if names else None, name, root, units)
        for name in names or list(data.images)[:1]
    }


def is_standard(threat: Threat, module: RobustnessEvaluator) -> bool:
    """Whether a threat is the standard AutoAttack, by the true gradients of the network."""
    plain = not judgment_blocks(module.network)
    given = isinstance(threat, AutoAttack) and threat.version == "standard"
    return given and plain and threat.through in ("auto", "forward")


def records_of(root: Path, units: Sequence[AttackUnit], threat: str) -> pa.Table:
    """All records of one threat, in order."""
    files = [unit.record(root) for unit in units if unit.threat == threat]
    return pa.concat_tables([pq.read_table(file) for file in files])


def write_rows(root: Path, rows: Sequence[AutoAttackRow]) -> None:
    """Writes `summary.csv` with its header; shares have six digits."""
    text = io.StringIO()
    names = [field.name for field in fields(AutoAttackRow)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells = asdict(row).items()
        writer.writerow({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in cells})
    write_text(root / FILE, text.getvalue())


@cache
def imagenet_classes() -> tuple[str, ...]:
    """WNIDs of ImageNet's 1,000 classes by label."""
    return tuple(ImageNetInfo("imagenet-1k").label_names())


def dataset_of(data: RobustnessDataModule) -> str:
    """`imagenet` for its 1,000 classes, else the folder of the images."""
    return IMAGENET if data.classes == imagenet_classes() else str(data.split.resolve())


def _row(
    module: RobustnessEvaluator,
    data: RobustnessDataModule,
    threat: Threat | None,
    name: str,
    root: Path,
    units: Sequence[AttackUnit],
) -> AutoAttackRow:
    table = records_of(root, units, name)
    pairs = zip(table["clean_prediction"].to_pylist(), table["label"].to_pylist(), strict=True)
    total, right = table.num_rows, sum(found == label for found, label in pairs)
    under: tuple[float | None, float | None, float | None] = (None, None, None)
    if threat is not None:
        stands = sum(table["robust"].to_pylist())
        under = (stands / total, *wilson_interval(stands, total))
    network = module.network
    network = network.network if isinstance(network, ClassGroups) else network
    subset = (data.settings["subset"] or "").partition(" ")[0]
    return AutoAttackRow(
        module.model_name,
        architecture_of(network),
        f"{dataset_of(data)} {subset}".strip(),
        "" if threat is None else str(threat.norm),
        "" if threat is None else eps_text(str(threat.norm), threat.eps),
        right / total,
        *wilson_interval(right, total),
        *under,
        total,
    )


def eps_text(norm: str, eps: float) -> str:
    """A radius as people write it: `4/255` under l_inf where it is so many steps of a pixel."""
    steps = eps * 255
    whole = norm == "linf" and abs(steps - round(steps)) < 1e-6
    return f"{round(steps)}/255" if whole else f"{eps:.6g}"
