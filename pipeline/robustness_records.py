"""Outcomes of the robustness evaluation: per-image records as they come, then a summary."""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from datamodules.attack_units import RECORD_SCHEMA, Z_95, wilson_interval
from datamodules.robustness_sets import RobustnessSets
from modules.robustness_evaluator import RobustnessEvaluator
from pipeline.parts_under_attack import write_part_counts
from pipeline.robustness_summary import sum_up
from pipeline.stage_outputs import config_differences, write_json

__all__ = ["Z_95", "RobustnessRecords", "wilson_interval"]

SECONDS_BETWEEN_LOOKS = 0.5


class RobustnessRecords(Callback):
    """Writes `records/<threat>/<chunk>.parquet`, `subset.txt`, `summary.json`, `examples.npz`.

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
        settings = {"model": module.fingerprint, **data.settings, "threats": threats}
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
            _write_text(Path(trainer.default_root_dir) / "subset.txt", data.subset_lines())

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
        if not outputs:  # the stopping rule found it needless
            return
        module, data = _parts(trainer, pl_module)
        unit = next(
            unit
            for unit in data.units
            if (unit.threat, unit.chunk) == (batch["threat"], batch["chunk"])
        )
        root = Path(trainer.default_root_dir)
        if "part_map" in batch:
            maps = (outputs[name].numpy() for name in ("clean_parts", "adversarial_parts"))
            truth = batch["part_map"].cpu().numpy()
            write_part_counts(unit.part_record(root), batch["key"], truth, *maps)
        folder = Path(trainer.default_root_dir) / "records" / batch["threat"]
        folder.mkdir(parents=True, exist_ok=True)
        if batch["chunk"] == 0 and module.threats[batch["threat"]].norm is not None:
            examples = _examples(batch, outputs, self.num_examples)
            objects = np.array(data.vocabulary.objects)
            _write_npz(folder / "examples.npz", {**examples, "objects": objects})
        columns = {"key": batch["key"], "label": batch["label"].cpu().numpy()}
        names = [name for name in RECORD_SCHEMA.names if name not in columns]
        columns |= {name: np.asarray(outputs[name]) for name in names}
        path = unit.record(root)
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
            while trainer.world_size > 1 and not _all_written(data, root):
                time.sleep(SECONDS_BETWEEN_LOOKS)
        trainer.strategy.barrier("robustness_records")
        if trainer.is_global_zero:
            needed = data.stopping.needed(root)
            left = sum(not unit.is_done(root) for unit in needed)
            if left:
                rank_zero_info(f"{left} of {len(needed)} units left: run the same command")
            else:
                self._sum_up(root, module, data)
        trainer.strategy.barrier("robustness_summary")

    def _sum_up(self, root: Path, module: RobustnessEvaluator, data: RobustnessSets) -> None:
        summary = sum_up(root, module, data, data.stopping.needed(root))
        for row in summary["threats"]:
            low, high = row["ci95"]
            rank_zero_info(
                f"{row['name']}: {row['accuracy']:.1%} of {row['n']} images "
                f"(95 % interval {low:.1%} to {high:.1%})"
            )
        for line in summary["warnings"]:
            rank_zero_info(line)
        attacked = [name for name in data.images if module.threats[name].norm is not None]
        if attacked:
            # attacks stop at the first success, all but PGD return robust images unchanged
            first = root / "records" / attacked[0] / "examples.npz"
            with np.load(first) as examples:
                _write_npz(root / "examples.npz", dict(examples))
        write_json(root / "summary.json", summary)


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


def _all_written(data: RobustnessSets, root: Path) -> bool:
    return all(unit.record(root).is_file() for unit in data.stopping.needed(root))


def _write_text(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    os.replace(partial, path)


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
