"""Outcomes of the robustness evaluation: per-image records as they come, then a summary."""

import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from datamodules.robustness_sets import RECORD_SCHEMA, AttackUnit, RobustnessSets
from modules.robustness_evaluator import RobustnessEvaluator
from modules.weights import fingerprint
from pipeline.stage_outputs import config_differences, write_json

Z_95 = 1.959963984540054
SECONDS_BETWEEN_LOOKS = 0.5


class RobustnessRecords(Callback):
    """Writes `records/<threat>/<chunk>.parquet`, `summary.json` and `examples.npz`.

    A record is written whole when its unit is done, so a killed run goes on with the units that
    have none. Records made under other settings are refused.

    Args:
        num_examples: pairs of clean and adversarial images in `examples.npz`.
    """

    def __init__(self, num_examples: int = 8) -> None:
        self.num_examples = num_examples

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compares the settings with those of the records in the run folder.

        Raises:
            ValueError: if a threat has images but no attack, or the settings differ.
        """
        module, data = _parts(trainer, pl_module)
        unknown = sorted(data.images.keys() - module.threats.keys())
        if unknown:
            raise ValueError(
                f"data.images names {', '.join(unknown)}, but the model's threats are "
                f"{', '.join(module.threats)}: add the threat or take out the images"
            )
        path = Path(trainer.default_root_dir) / "records" / "settings.json"
        threats = {name: module.threats[name].settings for name in data.images}
        settings = {"model": fingerprint(module.weights), **data.settings, "threats": threats}
        if path.is_file():
            old = json.loads(path.read_text())
            # threats that only one of the two has are no contradiction
            settings["threats"] = old["threats"] | threats
            differences = config_differences(old | {"threats": threats | old["threats"]}, settings)
            if differences:
                raise ValueError(
                    f"{path.parent} was written with other settings ({'; '.join(differences)}): "
                    "use another run folder or delete the records"
                )
        if trainer.is_global_zero:
            write_json(path, settings)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Writes the record of one unit."""
        module, data = _parts(trainer, pl_module)
        folder = Path(trainer.default_root_dir) / "records" / batch["threat"]
        folder.mkdir(parents=True, exist_ok=True)
        if batch["chunk"] == 0 and module.threats[batch["threat"]].norm is not None:
            examples = _examples(batch, outputs, self.num_examples)
            objects = np.array(data.vocabulary.objects)
            _write_npz(folder / "examples.npz", {**examples, "objects": objects})
        columns = {"key": batch["key"], "label": batch["label"].cpu().numpy()}
        names = [name for name in RECORD_SCHEMA.names if name not in columns]
        columns |= {name: outputs[name].numpy() for name in names}
        path = folder / f"{batch['chunk']:05d}.parquet"
        partial = path.with_name(f".{path.name}.partial")
        pq.write_table(pa.table(columns, schema=RECORD_SCHEMA), partial)
        os.replace(partial, path)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Sums up when all processes are done; also where there was nothing left to do.

        Lightning calls no other hook at the end of a test without batches. Processes wait by
        looking for records, since a collective operation would time out when attacks differ by
        hours.
        """
        module, data = _parts(trainer, pl_module)
        root = Path(trainer.default_root_dir)
        if trainer.limit_test_batches == 1.0 and isinstance(trainer.limit_test_batches, float):
            while trainer.world_size > 1 and not _all_written(data.units, root):
                time.sleep(SECONDS_BETWEEN_LOOKS)
        trainer.strategy.barrier("robustness_records")
        if trainer.is_global_zero:
            left = sum(not unit.is_done(root) for unit in data.units)
            if left:
                rank_zero_info(f"{left} of {len(data.units)} units left: run the same command")
            else:
                self._sum_up(root, module, data)
        trainer.strategy.barrier("robustness_summary")

    def _sum_up(self, root: Path, module: RobustnessEvaluator, data: RobustnessSets) -> None:
        rows = []
        for name in data.images:
            records = [unit.record(root) for unit in data.units if unit.threat == name]
            robust = np.concatenate([pq.read_table(file)["robust"].to_numpy() for file in records])
            right, total = int(robust.sum()), len(robust)
            low, high = wilson_interval(right, total)
            threat = module.threats[name]
            rows.append(
                {
                    "name": name,
                    "norm": threat.norm,
                    "eps": threat.eps,
                    "accuracy": right / total,
                    "ci95": [low, high],
                    "n": total,
                }
            )
            rank_zero_info(
                f"{name}: {right / total:.1%} of {total} images "
                f"(95 % interval {low:.1%} to {high:.1%})"
            )
        attacked = [name for name in data.images if module.threats[name].norm is not None]
        if attacked:
            # attacks stop at the first success, all but PGD return robust images unchanged
            first = root / "records" / attacked[0] / "examples.npz"
            with np.load(first) as examples:
                _write_npz(root / "examples.npz", dict(examples))
        write_json(root / "summary.json", {"model": str(module.weights), "threats": rows})


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """95 % confidence interval of a proportion (Wilson 1927).

    Args:
        right: number of successes.
        total: number of trials, at least 1.

    Returns:
        Lower and upper end, in [0, 1].
    """
    share, shrink = right / total, 1 + Z_95**2 / total
    centre = (share + Z_95**2 / (2 * total)) / shrink
    half = Z_95 / shrink * math.sqrt(share * (1 - share) / total + Z_95**2 / (4 * total**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _parts(
    trainer: Trainer, pl_module: LightningModule
) -> tuple[RobustnessEvaluator, RobustnessSets]:
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(pl_module, RobustnessEvaluator) or not isinstance(data, RobustnessSets):
        raise ValueError(
            "RobustnessRecords needs RobustnessEvaluator and RobustnessSets, not "
            f"{type(pl_module).__name__} and {type(data).__name__}: see configs/evaluate/"
        )
    return pl_module, data


def _all_written(units: Sequence[AttackUnit], root: Path) -> bool:
    return all(unit.record(root).is_file() for unit in units)


def _examples(
    batch: dict[str, Any], outputs: dict[str, Tensor], number: int
) -> dict[str, np.ndarray]:
    adversarial = (outputs["adversarial"][:number] * 255).round().byte()
    return {
        "clean": batch["image"][:number].cpu().permute(0, 2, 3, 1).numpy(),
        "adversarial": adversarial.permute(0, 2, 3, 1).numpy(),
        "label": batch["label"][:number].cpu().numpy(),
        "clean_prediction": outputs["clean_prediction"][:number].numpy(),
        "adversarial_prediction": outputs["adversarial_prediction"][:number].numpy(),
        "key": np.array(batch["key"][:number]),
        "threat": np.array([batch["threat"]] * len(batch["key"][:number])),
    }


def _write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    os.replace(partial, path)
