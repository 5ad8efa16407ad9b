"""Outcomes of the robustness evaluation: per-image records as they come, then a summary."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from datamodules.evaluation.attack_units import RECORD_SCHEMA
from datamodules.files.atomic_files import write_text, written_whole
from datamodules.files.errors import UserError
from datamodules.files.json_files import write_json
from datamodules.robustness import RobustnessDataModule
from modules.robustness_evaluator import RobustnessEvaluator
from pipeline.evaluation.part_iou import write_part_counts
from pipeline.evaluation.records import (
    accuracy_line,
    await_records,
    joined_settings,
    write_record,
)
from pipeline.evaluation.robustness_summary import sum_up


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
            UserError: if a threat has images but no attack, or the settings differ.
        """
        module, data = _parts(trainer, pl_module)
        unknown = sorted(data.images.keys() - module.threats.keys())
        if unknown:
            raise UserError(
                f"data.images names {', '.join(unknown)}, but the model's threats are "
                f"{', '.join(module.threats)}: add the threat or take out the images"
            )
        root = Path(trainer.default_root_dir)
        path = root / "records" / "settings.json"
        threats = {name: module.threats[name].settings for name in data.images}
        settings = joined_settings(
            path,
            {"model": module.fingerprint, **data.settings, "threats": threats},
            "threats",
            "use another run folder or delete the records",
        )
        if trainer.is_global_zero:
            write_json(path, settings)
            write_text(root / "subset.txt", data.subset_lines())

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
        if "clean_parts" in outputs:
            maps = (outputs[name].numpy() for name in ("clean_parts", "adversarial_parts"))
            truth = batch["part_map"].cpu().numpy()
            write_part_counts(unit.part_record(root), batch["key"], truth, *maps)
        if batch["chunk"] == 0 and module.threats[batch["threat"]].norm is not None:
            folder = root / "records" / batch["threat"]
            folder.mkdir(parents=True, exist_ok=True)
            examples = _examples(batch, outputs, self.num_examples)
            objects = np.array(data.answers)
            _write_npz(folder / "examples.npz", {**examples, "objects": objects})
        write_record(unit.record(root), batch, outputs, RECORD_SCHEMA)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Sums up when all processes are done; also where there was nothing left to do.

        Lightning calls no other hook at the end of a test without batches.
        """
        module, data = _parts(trainer, pl_module)
        root = Path(trainer.default_root_dir)
        await_records(trainer, lambda: _all_written(data, root))
        trainer.strategy.barrier("robustness_records")
        if trainer.is_global_zero:
            needed = data.stopping.needed(root)
            left = sum(not unit.is_done(root) for unit in needed)
            if left:
                rank_zero_info(f"{left} of {len(needed)} units left: run the same command")
            else:
                self._sum_up(root, module, data)
        trainer.strategy.barrier("robustness_summary")

    def _sum_up(self, root: Path, module: RobustnessEvaluator, data: RobustnessDataModule) -> None:
        summary = sum_up(root, module, data, data.stopping.needed(root))
        for row in summary["threats"]:
            rank_zero_info(accuracy_line(row))
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
) -> tuple[RobustnessEvaluator, RobustnessDataModule]:
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(pl_module, RobustnessEvaluator) or not isinstance(data, RobustnessDataModule):
        raise UserError(
            "RobustnessRecords needs RobustnessEvaluator and RobustnessDataModule, not "
            f"{type(pl_module).__name__} and {type(data).__name__}: see configs/evaluate/"
        )
    return pl_module, data


def _all_written(data: RobustnessDataModule, root: Path) -> bool:
    return all(unit.record(root).is_file() for unit in data.stopping.needed(root))


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
    with written_whole(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
