"""What the records of the robustness evaluation say: accuracies, warnings, parts under attack."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.evaluation.attack_units import AttackUnit, wilson_interval
from datamodules.robustness import RobustnessDataModule
from modules.attacks.smoothing import RandomisedSmoothing
from modules.attacks.threats import Threat
from modules.robustness_evaluator import RobustnessEvaluator
from pipeline.evaluation.certified import certified_row
from pipeline.evaluation.doubts import ProbedDoubts, attack_warnings
from pipeline.evaluation.part_iou import part_scores
from pipeline.evaluation.summaries import (
    AttackedImages,
    PartsUnderAttack,
    RobustnessSummary,
    ThreatRow,
)

SQUARE_SHARE = 0.002  # above it, pyautoattack calls an evaluation unreliable


def summarise(
    root: Path,
    module: RobustnessEvaluator,
    data: RobustnessDataModule,
    units: Sequence[AttackUnit],
) -> RobustnessSummary:
    """Sums up the records of a robustness evaluation.

    Args:
        root: run folder with all records.
        module: the evaluator.
        data: its images.
        units: what the result rests on.
    """
    rows, tables, certified = [], {}, []
    for name in data.images:
        mine = [unit for unit in units if unit.threat == name]
        table = pa.concat_tables([pq.read_table(unit.record(root)) for unit in mine])
        tables[name] = table
        robust = table["robust"].to_pylist()
        threat = module.threats[name]
        early = len(robust) < min(data.images[name], len(data.image_list))
        if isinstance(threat, RandomisedSmoothing):
            certified.append(certified_row(name, threat, table, early))
            continue
        rows.append(
            ThreatRow(
                name,
                threat.norm,
                threat.eps,
                accuracy=sum(robust) / len(robust),
                ci95=wilson_interval(sum(robust), len(robust)),
                n=len(robust),
                broken_by=dict(sorted(Counter(table["broken_by"].to_pylist()).items())),
                early=early,
            )
        )
    labels = Counter(label for _, label in data.subset)
    images = AttackedImages(
        "subset.txt",
        hashlib.sha256(data.subset_lines().encode()).hexdigest(),
        images=len(data.subset),
        per_class=[min(labels.values()), max(labels.values())],
    )
    warnings = [
        *ProbedDoubts.lines_of(root),
        *attack_warnings(root, units),
        *masking_warnings(module.threats, tables),
    ]
    parts = _parts(root, module, data, units)
    return RobustnessSummary(module.model_name, rows, images, warnings, parts, certified)


def masking_warnings(threats: dict[str, Threat], tables: dict[str, pa.Table]) -> list[str]:
    """Signs that gradients are masked, one line each.

    An attack without gradients that leaves fewer images standing than one by gradient of the same
    ball, on the images that both attacked; and, as pyautoattack has it, an AutoAttack whose Square
    breaks more than 0.2 % of the images after all attacks by gradient failed.

    Args:
        threats: threat models by name.
        tables: records by threat.
    """
    found = []
    robust = {
        name: dict(zip(table["key"].to_pylist(), table["robust"].to_pylist(), strict=True))
        for name, table in tables.items()
    }
    for black in (name for name in tables if threats[name].black_box):
        for white in (name for name in tables if not threats[name].black_box):
            ball = (threats[white].norm, threats[white].eps)
            both = robust[black].keys() & robust[white].keys()
            if ball != (threats[black].norm, threats[black].eps) or not both:
                continue
            standing = [sum(robust[name][key] for key in both) for name in (black, white)]
            alone = sum(robust[white][key] and not robust[black][key] for key in both)
            if standing[0] < standing[1]:
                found.append(
                    f"WARNING: {black} uses no gradients and leaves {standing[0]} of {len(both)} "
                    f"images standing, {white} leaves {standing[1]} ({alone} were broken by "
                    f"{black} alone): gradients may be masked, {white} is no upper bound"
                )
    for name, table in tables.items():
        by_square = table["broken_by"].to_pylist().count("square")
        if not threats[name].black_box and by_square > SQUARE_SHARE * len(table):
            found.append(
                f"WARNING: Square broke {by_square} of {len(table)} images that the attacks by "
                f"gradient of {name} had not: gradients may be masked"
            )
    return found


def _parts(
    root: Path,
    module: RobustnessEvaluator,
    data: RobustnessDataModule,
    units: Sequence[AttackUnit],
) -> PartsUnderAttack:
    if not data.annotations:
        return PartsUnderAttack("no part annotations of val images: give PINPP_VAL=")
    if module.without_parts:
        return PartsUnderAttack(module.without_parts)
    by_threat = {}
    for name in data.images:
        files = [unit.part_record(root) for unit in units if unit.threat == name]
        if module.threats[name].norm is not None and (scores := part_scores(files)):
            by_threat[name] = scores
    if not by_threat:
        return PartsUnderAttack("no attacked image has part annotations")
    # attacks that give images back as they were where they failed say less of the parts
    moving = [name for name in by_threat if module.threats[name].moves_all]
    return PartsUnderAttack("", (moving or list(by_threat))[0], by_threat)
