"""Callback of stage 1: AP of objects, IoU of composites, and tables by category."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.errors import UserError
from datamodules.files.json_files import write_json
from modules.metrics.coco_ap import CocoAP, MaskMetrics
from pipeline.runs.best_checkpoint import is_best
from pipeline.validation.category_tables import (
    Row,
    detected_object_rows,
    object_rows,
    part_rows,
    print_worst,
)
from pipeline.validation.composite_iou import CompositeIoU, mean_iou
from pipeline.validation.composite_maps import paint_parts, strong_detections
from pipeline.validation.object_segmentation import print_object_segmentation

TABLE = "per_category.json"
SUFFIXES = ("", "_filtered")


class SegmenterMetrics(Callback):
    """Measures what stage 3 makes of the segmenter's parts, and lists categories by AP.

    In the module's own validation pass, without and with the category filter, it logs

    - `val/object_AP`, `object_AP50`, ...: COCO mask AP of whole objects. The ground truth is one
      instance an image, the union of its parts, with the image's object category. The parts found
      in an image give one detection for each object category they belong to: the union of their
      masks, with the highest of their scores.
    - `val/semantic_mIoU`: mean IoU of the composite label maps over the parts that the ground
      truth shows, pixels pooled over all images (as `pipeline.labelling.quality` measures labels).

    `per_category.json` in the run folder belongs to the best checkpoint: a list `parts` (object,
    part, images and masks of the ground truth, AP, AP50, AP75, APs, APm, APl, IoU) and a list
    `objects` (the same as means over the parts of an object, and its `object_AP`), the figures
    with the filter ending in `_filtered`, null where the ground truth has nothing to measure. The
    worst parts are printed when a fit or a validation ends.

    Of a segmenter with whole objects among its classes, objects also have the figures
    `detected_object_AP`, ... and a table of all ways to find objects is printed; where it finds no
    parts, nothing above is measured and `parts` is empty.

    Args:
        score_threshold: parts with a lower score are neither united nor painted; meant to be the
            `score_threshold` of stage 3's data. AP of the parts counts all of them.
        worst: so many of the worst parts are printed.

    Raises:
        UserError: if the module is no part segmenter.
    """

    def __init__(self, score_threshold: float = 0.0, worst: int = 10) -> None:
        self.score_threshold = score_threshold
        self.worst = worst

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepares the measurements for the vocabulary of the data."""
        if not hasattr(pl_module, "mask_metrics"):
            raise UserError(
                f"SegmenterMetrics measures PartSegmenter, not {type(pl_module).__name__}: remove "
                "the callback from this configuration"
            )
        vocabulary: PartVocabulary = trainer.datamodule.vocabulary  # type: ignore[attr-defined]
        self.vocabulary = vocabulary
        self.finds_parts = getattr(pl_module, "finds_parts", True)
        self.finds_objects = getattr(pl_module, "finds_objects", False)
        self.object_of = vocabulary.object_parts.int().argmax(dim=0)  # (K + 1,), 0 is not a part
        self.objects = CocoAP(SUFFIXES)
        self.composites = CompositeIoU(SUFFIXES, vocabulary.num_parts)
        self.object_metrics: dict[str, MaskMetrics] = {}
        self.part_iou: dict[str, dict[int, float]] = {}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts a new measurement."""
        self.objects.reset()
        self.composites.reset()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Adds a batch; `outputs` are its parts by suffix, without and with the filter."""
        if not self.finds_parts:
            return
        for i, key in enumerate(batch["key"]):
            target = {name: value.cpu() for name, value in batch["target"][i].items()}
            label = int(batch["label"][i])
            found = {
                suffix: strong_detections(outputs[suffix][i], self.score_threshold)
                for suffix in SUFFIXES
            }
            self.objects.update(
                key,
                _united(target, torch.full_like(target["labels"], label)),
                {
                    suffix: _united(parts, self.object_of[parts["labels"]])
                    for suffix, parts in found.items()
                },
            )
            self.composites.update(
                key,
                paint_parts(target, self.vocabulary),
                {suffix: paint_parts(parts, self.vocabulary) for suffix, parts in found.items()},
            )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the means, the same values on every rank."""
        if not self.finds_parts:
            return
        self.object_metrics = self.objects.compute()
        self.part_iou = self.composites.compute()
        for suffix in SUFFIXES:
            figures = asdict(self.object_metrics[suffix].summary())
            values = {f"val/object_{name}{suffix}": value for name, value in figures.items()}
            values[f"val/semantic_mIoU{suffix}"] = mean_iou(self.part_iou[suffix])
            pl_module.log_dict(values)
        self.on_validation_epoch_start(trainer, pl_module)  # frees the records

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the table if this is the best state so far; never in a dry run."""
        if trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if not is_best(trainer) or not trainer.is_global_zero:
            return
        parts: list[Row] = []
        objects: list[Row] = []
        module: Any = pl_module
        if self.finds_parts:
            parts = part_rows(self.vocabulary, module.mask_metrics, self.part_iou)
            objects = object_rows(self.vocabulary, parts, self.object_metrics)
        if self.finds_objects:
            objects = detected_object_rows(self.vocabulary, objects, module.object_metrics)
        table = {"score_threshold": self.score_threshold, "objects": objects, "parts": parts}
        write_json(Path(trainer.default_root_dir) / TABLE, table)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prints the worst parts of the best state, and its AP of objects where it detects such."""
        path = Path(trainer.default_root_dir) / TABLE
        if stage in ("fit", "validate") and trainer.is_global_zero and path.is_file():
            print_worst(path, self.worst)
            if self.finds_objects:
                print_object_segmentation(path.parent)


def _united(parts: Mapping[str, Tensor], objects: Tensor) -> dict[str, Tensor]:
    """One instance for each object category: the union of its parts, their highest score.

    Args:
        parts: on the CPU, `masks (N, H, W)` and, for detections, `scores (N,)`.
        objects: object category of each part `(N,)`.
    """
    present = objects.unique().tolist()
    member = [objects == label for label in present]
    masks = [parts["masks"][one].any(dim=0) for one in member]
    united = {
        "labels": torch.tensor(present, dtype=torch.int64),
        "masks": torch.stack(masks) if masks else parts["masks"][:0],
    }
    if "scores" in parts:
        scores = [parts["scores"][one].max() for one in member]
        united["scores"] = torch.stack(scores) if scores else parts["scores"][:0]
    return united
