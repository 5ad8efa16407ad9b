"""Evaluated models whose outcomes are known image by image."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import timm
import torch

from datamodules.corruptions import CORRUPTIONS, SEVERITIES
from datamodules.evaluation.attack_units import RECORD_SCHEMA, wilson_interval
from datamodules.files.json_files import write_json
from datamodules.generalisation import RECORD_SCHEMA as SET_SCHEMA
from modules.networks.preprocessing import ImageFormat
from modules.weights.classifier_export import export_timm
from pipeline.evaluation.generalisation_records import mean_rows
from pipeline.evaluation.summaries import GeneralisationSummary, SetRow, ThreatRow
from tests.pipeline.report.report_runs import summary_of

AUTOATTACK = {"attack": "AutoAttack", "version": "standard"}


def keys_of(number: int) -> list[str]:
    return [f"n01/{place:04d}.png" for place in range(number)]


def export(run: Path, width: int, seed: int = 0) -> None:
    """A tiny network of some width, exported as stage 3 leaves one."""
    torch.manual_seed(seed)
    arguments = {"channels": [width, width, 2 * width, 2 * width]}
    export_timm(
        timm.create_model("resnet10t", num_classes=4, **arguments),
        run / "export",
        architecture="resnet10t",
        model_args=arguments,
        num_classes=4,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        images=ImageFormat(32),
    )


def attacked(run: Path, told: str, outcomes: Mapping[str, Sequence[bool]]) -> None:
    """Records and summary of `clean` and `autoattack`."""
    rows = []
    for name, robust in outcomes.items():
        norm, eps = (None, 0.0) if name == "clean" else ("linf", 4 / 255)
        right = [bool(one) for one in robust]
        interval = wilson_interval(sum(right), len(right))
        rows.append(ThreatRow(name, norm, eps, sum(right) / len(right), interval, len(right)))
        filler = {field.name: [0] * len(right) for field in RECORD_SCHEMA}
        filler |= {"key": keys_of(len(right)), "robust": right, "broken_by": [""] * len(right)}
        folder = run / "records" / name
        folder.mkdir(parents=True)
        pq.write_table(pa.table(filler, schema=RECORD_SCHEMA), folder / "00000.parquet")
    summary_of(told, rows).write(run)
    threats = {name: AUTOATTACK if name != "clean" else {"attack": "Clean"} for name in outcomes}
    write_json(run / "records" / "settings.json", {"threats": threats})


def shifted(run: Path, told: str, outcomes: Mapping[str, np.ndarray]) -> None:
    """Records and summary of sets without an attack, by name; corruptions by name and severity."""
    rows = []
    for name, correct in outcomes.items():
        right = [bool(one) for one in correct]
        table = "corruptions" if name.split("/")[0] in CORRUPTIONS else "ood"
        interval = wilson_interval(sum(right), len(right))
        rows.append(SetRow(name, table, sum(right) / len(right), interval, len(right)))
        columns = {field.name: [0] * len(right) for field in SET_SCHEMA}
        columns |= {"key": keys_of(len(right)), "correct": right}
        folder = run / "generalisation" / "records" / name
        folder.mkdir(parents=True)
        pq.write_table(pa.table(columns, schema=SET_SCHEMA), folder / "00000.parquet")
    means = mean_rows(rows, run / "generalisation")
    GeneralisationSummary(told, rows, means).write(run / "generalisation")


def all_corruptions(share: float, images: int = 40, seed: int = 0) -> dict[str, np.ndarray]:
    """Outcomes under all 75 corruptions: image by image one draw, right below `share`."""
    draws = np.random.default_rng(seed).random((75, images))
    names = [f"{name}/{severity}" for name in CORRUPTIONS for severity in SEVERITIES]
    return {name: draw < share for name, draw in zip(names, draws, strict=True)}


def first(number: int, of: int = 200) -> list[bool]:
    """The first images are right, so that two such models differ on as few as can be."""
    return [place < number for place in range(of)]


def write_models(runs: Path) -> Path:
    """Three models: `robust` beats `plain` of the same network under attack, `wide` is clean."""
    for name, width, clean, robust in (
        ("plain", 8, 150, 60),
        ("robust", 8, 150, 100),
        ("wide", 16, 180, 62),
    ):
        export(runs / name, width)
        told = str(runs / name)
        attacked(
            runs / "evaluate" / name, told, {"clean": first(clean), "autoattack": first(robust)}
        )
    return runs
