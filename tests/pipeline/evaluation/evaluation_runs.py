"""How the tests run evaluations within their own process, and what a run folder then holds."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from lightning.pytorch import Callback, Trainer

from datamodules.robustness import RobustnessDataModule
from modules.attacks.threats import PGD, Clean, Threat
from modules.robustness_evaluator import RobustnessEvaluator
from pipeline.evaluation.robustness_records import RobustnessRecords

IMAGES = {"clean": 10, "pgd": 7}


def quiet_trainer(run: Path, records: Callback, **options: Any) -> Trainer:
    """A trainer on the CPU that writes nothing but the records."""
    return Trainer(
        default_root_dir=run,
        use_distributed_sampler=False,
        accelerator="cpu",
        callbacks=[records],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **options,
    )


def evaluate_robustness(
    model: Path,
    shapes_root: Path,
    run: Path,
    pgd: Threat | None = None,
    images: dict[str, int] = IMAGES,
    stop_width: float | None = None,
    part_annotations: Path | None = None,
    stop_against: Path | None = None,
    stop_level: float = 0.05,
    **options: object,
) -> RobustnessDataModule:
    """Attacks `images` images in chunks of three, without an attack and with PGD."""
    threats: dict[str, Threat] = {"clean": Clean(), "pgd": pgd or PGD(0.05, 2, 0.03)}
    sets = RobustnessDataModule(
        shapes_root / "imagenet",
        shapes_root / "pinpp",
        dict(images),
        3,
        image_size=16,
        resize=16,
        stop_width=stop_width,
        part_annotations=part_annotations,
        stop_against=stop_against,
        stop_level=stop_level,
    )
    trainer = quiet_trainer(run, RobustnessRecords(num_examples=2), inference_mode=False, **options)
    evaluator = RobustnessEvaluator(model, threats, sets.object_parts)
    trainer.test(evaluator, datamodule=sets, verbose=False)
    return sets


def contents(run: Path) -> dict[str, object]:
    """All records and the summary of a run folder."""
    records = sorted((run / "records").rglob("*.parquet"))
    tables = {str(path.relative_to(run)): pq.read_table(path).to_pydict() for path in records}
    return tables | {"summary": json.loads((run / "summary.json").read_text())}
