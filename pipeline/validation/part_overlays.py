"""Callback: part masks over a few validation images, in TensorBoard while a stage trains."""

from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from datamodules.annotations.part_vocabulary import PartVocabulary
from pipeline.drawing.palette import part_colours
from pipeline.drawing.part_overlays import draw_legend, legend_of, show_parts
from pipeline.validation.composite_maps import paint_parts, strong_detections

LEGEND_WIDTH = 170


def _pixels(image: Tensor) -> np.ndarray:
    """Image (3, H, W), uint8 or float in [0, 1], as uint8 (H, W, 3)."""
    if image.is_floating_point():
        image = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return image.permute(1, 2, 0).cpu().numpy()


class PartOverlays(Callback):
    """Writes image, target parts and predicted parts of the first validation images.

    Works with modules that have `predict(images, labels)` (stage 1) or `predict_parts(images)`
    (stage 3); segmenters of whole objects alone, other modules, other loggers than TensorBoard's
    and odd batches are passed over. Drawing happens at the end of the first validation batch, while
    averaged weights, if there are any, are in place, and takes no random numbers.

    Args:
        num_images: At most so many images.
        side: Longer side of a drawn image in pixels.
        score_threshold: Detections below this score are not drawn.
    """

    def __init__(self, num_images: int = 4, side: int = 224, score_threshold: float = 0.5) -> None:
        self.num_images = num_images
        self.side = side
        self.score_threshold = score_threshold

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws on rank 0 from the first batch of the first loader."""
        first = batch_idx == 0 and dataloader_idx == 0
        if not first or not trainer.is_global_zero or trainer.sanity_checking:
            return
        writer: Any = getattr(pl_module.logger, "experiment", None)
        vocabulary = getattr(getattr(trainer, "datamodule", None), "vocabulary", None)
        if not hasattr(writer, "add_image") or vocabulary is None:
            return
        try:
            picture = self.draw(pl_module, batch, vocabulary)
        # A picture is not worth a training run: whatever is odd in a batch becomes a warning
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            rank_zero_warn(f"no part picture of this validation batch: {error!r}")
            return
        if picture is not None:
            writer.add_image("val/parts", picture, trainer.global_step, dataformats="HWC")

    @torch.no_grad()
    def draw(
        self, pl_module: LightningModule, batch: dict[str, Any], vocabulary: PartVocabulary
    ) -> np.ndarray | None:
        """Draws one row an image: image, target, prediction, legend.

        Args:
            pl_module: Module in eval mode.
            batch: Batch of stage 1 (`image`, `target`, `label`) or of stage 3 (`image`,
                and where there are any `part_labels`, `part_weight`), on the module's device.
            vocabulary: Names and inclusion relations of the parts.

        Returns:
            uint8 (H, W, 3); None if the module predicts no parts or the batch is empty.
        """
        images = batch["image"][: self.num_images]
        if not len(images):
            return None
        targets: list[np.ndarray | None]
        module: Any = pl_module
        if hasattr(module, "predict_parts"):
            parts = module.predict_parts(images)
            if parts is None:
                return None
            predictions = list(parts.cpu().numpy())
            targets = [None] * len(predictions)
            # Validation images of stage 3 have no part labels: no annotation of them exists
            for place, weight in enumerate(batch.get("part_weight", [])[: len(images)]):
                if weight > 0:
                    targets[place] = batch["part_labels"][place].cpu().numpy()
        elif hasattr(module, "predict") and getattr(module, "finds_parts", True):
            found = module.predict(images, batch["label"][: len(images)])
            predictions = [
                paint_parts(strong_detections(one, self.score_threshold), vocabulary)
                for one in found
            ]
            targets = [paint_parts(one, vocabulary) for one in batch["target"][: len(images)]]
        else:
            return None
        colours = part_colours(vocabulary)
        rows = [
            self._row(_pixels(image), target, prediction, vocabulary, colours)
            for image, target, prediction in zip(images, targets, predictions, strict=True)
        ]
        return np.concatenate(rows)

    def _row(
        self,
        image: np.ndarray,
        target: np.ndarray | None,
        prediction: np.ndarray,
        vocabulary: PartVocabulary,
        colours: np.ndarray,
    ) -> np.ndarray:
        row = np.full((self.side + 4, 3 * (self.side + 4) + LEGEND_WIDTH, 3), 255, np.uint8)
        for place, mask in enumerate((None, target, prediction)):
            if place == 1 and target is None:
                continue
            drawn = show_parts(image, mask, colours, self.side)
            left = place * (self.side + 4)
            row[: drawn.shape[0], left : left + drawn.shape[1]] = drawn
        legend = legend_of((target, prediction), vocabulary, colours)
        drawn = draw_legend(legend, LEGEND_WIDTH, max(1, len(legend)))[: self.side]
        row[: drawn.shape[0], -LEGEND_WIDTH:] = drawn
        return row
