"""What it costs to watch a training for values that are not finite.

Both trainings run through Lightning with the callback in place, which looks at the steps on, off,
off, on and so forth, so that both kinds of steps see the same machine: MPM with a ResNet-50-GELU
and 3,311 part classes under PGD-2 (at 128 pixels on a CPU), and a segmenter of the size
of `configs/stage1_segmenter/small.yaml`. The share of the callback is measured by itself, too:
time inside its hooks over time of the steps, which does not feel what else the machine does.

    python benchmarks/finite_checks.py
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parent))
from adversarial_step import batch, model

from modules.networks.detector_settings import MaskDetectorSettings
from modules.part_segmenter import PartSegmenter
from pipeline.runs.finite_training import FiniteTraining

WARM_UP = 4  # steps that are not counted
HOOKS = ("on_before_backward", "on_before_optimizer_step")  # those of every step
PARTS = 8  # part classes of the segmenter


class Alternating(Callback):
    """Times steps with and without the hooks of a callback, and the hooks alone."""

    def __init__(self, watch: FiniteTraining) -> None:
        self.on = True
        self.hooks = 0.0
        self.steps: dict[bool, list[float]] = {True: [], False: []}
        self.shares: list[float] = []
        for name in HOOKS:
            setattr(watch, name, self._timed(getattr(watch, name)))

    def _timed(self, hook: Callable[..., None]) -> Callable[..., None]:
        def timed(*args: Any) -> None:
            if self.on:
                start = time.perf_counter()
                hook(*args)
                self.hooks += time.perf_counter() - start

        return timed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Starts the clock; on, off, off, on."""
        self.on = batch_idx % 4 in (0, 3)
        self.hooks = 0.0
        _wait()
        self.start = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stops the clock."""
        _wait()
        seconds = time.perf_counter() - self.start
        if batch_idx >= WARM_UP:
            self.steps[self.on].append(seconds)
            if self.on:
                self.shares.append(self.hooks / seconds)


def mpm(size: int, side: int) -> tuple[LightningModule, Any]:
    """MPM at full size, and a batch of so many images of this resolution."""
    given = batch(size, "cpu")
    given["image"] = given["image"][..., :side, :side].contiguous()
    given["part_labels"] = given["part_labels"][:, : side // 8, : side // 8].contiguous()
    return model(), given


def segmenter(size: int) -> tuple[LightningModule, Any]:
    """The small segmenter, and a batch of images of 128 pixels with three parts each."""
    torch.manual_seed(0)
    settings = MaskDetectorSettings(
        fpn_channels=64,
        mask_channels=(64, 64),
        box_head_dim=256,
        min_size=128,
        max_size=192,
        anchor_sizes=(8, 16, 32, 64, 96),
        rpn_proposals=200,
        rois_per_image=64,
    )
    boxes = torch.tensor([[8.0, 8, 60, 60], [40, 30, 120, 90], [10, 70, 50, 120]])
    masks = torch.zeros(3, 128, 128, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    target = {"boxes": boxes, "labels": torch.tensor([1, 2, 3]), "masks": masks}
    given = {"image": list(torch.rand(size, 3, 128, 128)), "target": [target] * size}
    object_parts = torch.ones(1, PARTS + 1, dtype=torch.bool)
    return PartSegmenter(object_parts, "resnet18", detector=settings), given


def measure(module: LightningModule, given: Any, steps: int, precision: str) -> dict[str, float]:
    """Seconds of a step, the ratio of those with the callback to those without, the hooks' share.

    A ratio is taken of every four steps, on, off, off, on: a slow drift of the machine cancels.

    Args:
        module: to train.
        given: its batch.
        steps: of each kind, an even number of at least 4.
        precision: of the trainer.
    """
    watch = FiniteTraining()
    clock = Alternating(watch)
    with tempfile.TemporaryDirectory() as root:
        trainer = Trainer(
            accelerator="auto",
            devices=1,
            precision=precision,  # type: ignore[arg-type]
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            default_root_dir=root,
            callbacks=[clock, watch],
        )
        batches = [given] * (2 * steps + WARM_UP)
        loader: DataLoader[Any] = DataLoader(
            batches,  # type: ignore[arg-type]
            batch_size=None,
            collate_fn=lambda one: one,
        )
        trainer.fit(module, loader)
    on, off = (
        [one + other for one, other in zip(seconds[::2], seconds[1::2], strict=True)]
        for seconds in (clock.steps[True], clock.steps[False])
    )
    low, middle, high = statistics.quantiles((a / b for a, b in zip(on, off, strict=True)), n=4)
    return {
        "step": statistics.median(off) / 2,
        "ratio": middle,
        "ratio_q1": low,
        "ratio_q3": high,
        "share": statistics.mean(clock.shares),  # a mean, as a GPU is waited for only now and then
    }


def main() -> None:
    """Prints the table and, last, the ratios as JSON."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=128 if cuda else 8, help="images, MPM")
    parser.add_argument("--side", type=int, default=224 if cuda else 128, help="pixels, MPM")
    parser.add_argument("--steps", type=int, default=100 if cuda else 16, help="of each kind")
    given = parser.parse_args()
    precision = "bf16-mixed" if cuda else "32-true"
    cases = {"mpm": mpm(given.batch, given.side), "segmenter": segmenter(8)}
    results = {name: measure(*case, given.steps, precision) for name, case in cases.items()}
    print(f"{'':12}{'step':>12}{'with / without':>16}  quartiles{'hooks alone':>19}")
    for name, found in results.items():
        print(
            f"{name:12}{1000 * found['step']:9.1f} ms{found['ratio']:16.3f}  "
            f"{found['ratio_q1']:.3f} .. {found['ratio_q3']:.3f}{100 * found['share']:11.2f} %"
        )
    print(json.dumps({f"{n}_{k}": v for n, f in results.items() for k, v in f.items()}))


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
