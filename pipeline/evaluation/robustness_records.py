"""Outcomes of the robustness evaluation: per-image records as they come, then a summary."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from datamodules.evaluation.attack_units import (
    CERTIFIED_SCHEMA,
    RECORD_SCHEMA,
    WARNINGS,
    AttackUnit,
)
from datamodules.files.atomic_files import write_text, written_whole
from datamodules.files.errors import UserError
from datamodules.robustness import RobustnessDataModule
from modules.robustness_evaluator import RobustnessEvaluator
from pipeline.evaluation.autoattack_rows import autoattack_rows, records_of, write_rows
from pipeline.evaluation.certified import certified_line
from pipeline.evaluation.decisions import decide, decision_line
from pipeline.evaluation.doubts import ProbedDoubts
from pipeline.evaluation.part_iou import write_part_counts
from pipeline.evaluation.records import EvaluationRecords, accuracy_line, write_record
from pipeline.evaluation.robustbench import describe, is_ranked, write_description
from pipeline.evaluation.robustness_summary import summarise
from pipeline.evaluation.same_measure import measured_settings, other_measures


class RobustnessRecords(EvaluationRecords[RobustnessEvaluator, RobustnessDataModule]):
    """Writes `records/<threat>/<chunk>.parquet`, `subset.txt`, `summary.json`, `examples.npz`.

    Besides, for tables elsewhere, `summary.csv`, and `robustbench.json` where RobustBench ranks
    models under one of the attacks.

    Args:
        num_examples: pairs of clean and adversarial images in `examples.npz`.
    """

    evaluator, data = RobustnessEvaluator, RobustnessDataModule
    configs = "configs/evaluate/"
    by_name = "threats"

    def __init__(self, num_examples: int = 8) -> None:
        self.num_examples = num_examples
        self._said: list[str] = []

    def settings(self, module: RobustnessEvaluator, data: RobustnessDataModule) -> dict[str, Any]:
        """Model, images and the threats that are to be measured.

        Raises:
            UserError: if a threat has images but no attack.
        """
        unknown = sorted(data.images.keys() - module.threats.keys())
        if unknown:
            raise UserError(
                f"data.images names {', '.join(unknown)}, but the model's threats are "
                f"{', '.join(module.threats)}: add the threat or take out the images"
            )
        threats = {name: module.threats[name].settings for name in data.images}
        return {"model": module.fingerprint, **data.settings, "threats": threats}

    def needed(self, data: RobustnessDataModule, root: Path) -> Sequence[AttackUnit]:
        """Units that the result rests on, as far as the stopping rule knows."""
        return data.stopping.needed(root)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compares the settings with those of the records, writes the list of images.

        Raises:
            UserError: if the settings differ, a threat has images but no attack, or the
                evaluation that it is to stop against measured something else.
        """
        module, data = self.parts(trainer, pl_module)
        if data.stop_against is not None:
            _refuse_other_reference(data.stop_against, self.settings(module, data))
        super().setup(trainer, pl_module, stage)
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            write_text(Path(trainer.default_root_dir) / "subset.txt", data.subset_lines())

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the model before it is attacked; every process that has units does the same.

        Raises:
            UserError: if its figures would be wrong, see `probe_classifier`.
        """
        module, data = self.parts(trainer, pl_module)
        with trainer.precision_plugin.test_step_context():
            self._said = module.probe(data.first_images(), list(data.images))
        for line in self._said:
            rank_zero_info(line)
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            ProbedDoubts.add(Path(trainer.default_root_dir), self._said)

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
        # the stopping rule found it needless, or nothing is to be left
        if not outputs or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        module, data = self.parts(trainer, pl_module)
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
        said = {WARNINGS: json.dumps(outputs["warnings"])} if outputs["warnings"] else None
        schema = CERTIFIED_SCHEMA if "radius" in outputs else RECORD_SCHEMA
        write_record(unit.record(root), batch, outputs, schema, said)
        shutil.rmtree(unit.kept(root), ignore_errors=True)

    def sum_up(self, root: Path, module: RobustnessEvaluator, data: RobustnessDataModule) -> None:
        """Writes `summary.json`, `summary.csv` and `examples.npz`.

        Also `robustbench.json` and `decisions.json` where there is something to say in them.
        """
        summary = summarise(root, module, data, self.needed(data, root))
        for row in summary.threats:
            rank_zero_info(accuracy_line(row))
        for certified in summary.certified:
            rank_zero_info(certified_line(certified))
        for line in summary.warnings:
            if line not in self._said:  # at the start
                rank_zero_info(line)
        for decision in decide(root, data, self.needed(data, root)):
            rank_zero_info(decision_line(decision, str(data.stop_against)))
        under_attack = [name for name in data.images if module.threats[name].norm is not None]
        if under_attack:
            # attacks stop at the first success, all but PGD return robust images unchanged
            first = root / "records" / under_attack[0] / "examples.npz"
            with np.load(first) as examples:
                _write_npz(root / "examples.npz", dict(examples))
        summary.write(root)
        units = self.needed(data, root)
        rows = autoattack_rows(root, module, data, units)
        write_rows(root, list(rows.values()))
        ranked = next((name for name, found in rows.items() if is_ranked(found)), None)
        if ranked is not None:
            keys = records_of(root, units, ranked)["key"].to_pylist()
            write_description(root, describe(rows[ranked], keys))


def _refuse_other_reference(reference: Path, settings: dict[str, Any]) -> None:
    known = measured_settings(reference)
    if found := other_measures(known, settings, settings["threats"]):
        raise UserError(
            f"stop_against={reference} did not measure what is asked for here "
            f"({'; '.join(found)}): evaluate the other model with these settings first"
        )


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
