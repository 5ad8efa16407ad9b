"""The full-size recipes, and how each is started to take two steps on one processor."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.runs.stage_commands import stage_command
from pipeline.runs.stages import DETECTION, LABELS, MPM, SEGMENTER, Stage

STEPS = 2
BATCH, MODEL = "--data.init_args.batch_size", "--model.init_args"
# What does not depend on the network: one process without a GPU, a checkpoint at each step.
ALWAYS = (
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
    "--trainer.strategy=auto",
    "--trainer.precision=32-true",
    "--trainer.callbacks+=benchmarks.full_size.step_marks.StepMarks",
    "--data.init_args.num_workers=0",
)
TRAINING = (f"--trainer.val_check_interval={STEPS}",)
OF_STAGE: Mapping[str, tuple[str, ...]] = {
    SEGMENTER.name: (*TRAINING, f"{MODEL}.pretrained=false"),
    LABELS.name: ("--data.init_args.shard_size=1",),
    MPM.name: (*TRAINING, "--data.init_args.val_images=2", f"{MODEL}.attack.val_steps=1"),
    DETECTION.name: TRAINING,
}


@dataclass(frozen=True)
class Recipe:
    """A configuration of a stage that is tried at full size.

    Attributes:
        stage: the stage.
        configs: names of its configurations, or files; later ones overlay.
        batch: images of a step; batch normalisation of a 1x1 map wants 2.
        memory: GB that it may need, about; it is not begun with less.
        disk: GB of its checkpoints, about: the last two and the one being written.
        overrides: further settings.
        updates: optimiser steps of a batch, the replays of downstream detection.
        segmenter: name of the recipe that trains the segmenter that it reads.
    """

    stage: Stage
    configs: tuple[str | Path, ...]
    batch: int = 2
    memory: float = 6.0
    disk: float = 2.0
    overrides: tuple[str, ...] = ()
    updates: int = 1
    segmenter: str | None = None

    def command(self, data: Path, runs: Path, run: Path) -> list[str]:
        """Arguments of `python -m pipeline`.

        Args:
            data: what `make_data` made.
            runs: folder of `labels`, and of the run folders of other recipes by name.
            run: run folder to fill.
        """
        folders = {name: data / name for name in self.stage.folders}
        earlier = None
        if self.stage is MPM:
            earlier = runs / "labels"
        if self.segmenter is not None:
            earlier = runs / self.segmenter
        more = [*ALWAYS, *OF_STAGE[self.stage.name], f"{BATCH}={self.batch}"]
        if self.stage is SEGMENTER:
            more.append(f"--data.init_args.split={data / 'split.json'}")
        if self.stage.trains:
            more.append(f"--trainer.max_steps={STEPS * self.updates}")
            more.append(f"--last_checkpoint.every_n_train_steps={self.updates}")
        return stage_command(
            self.stage, run, folders, *more, *self.overrides, configs=self.configs, earlier=earlier
        )


def _mpm(*overlays: str, **changes: float) -> Recipe:
    return Recipe(MPM, ("resnet50_gelu_at", *overlays), **changes)  # type: ignore[arg-type]


SWIN_B = ("pinpp_swin_b",)
LARGE = (
    f"{MODEL}.detector.min_size=800",
    f"{MODEL}.detector.max_size=800",
    "--data.init_args.canvas=800",
)
RECIPES: dict[str, Recipe] = {
    "mpm_resnet50": _mpm(),
    "two_stage": _mpm("downsampled"),
    "rock": _mpm("rock"),
    "deeplabv3plus": _mpm("downsampled", "deeplabv3plus"),
    "convnext_tiny": _mpm("convnext_tiny"),
    "swin_tiny": _mpm("swin_tiny"),
    "vit_small": _mpm("vit_small"),
    "segmenter_swin_b": Recipe(SEGMENTER, SWIN_B, batch=1, memory=9, disk=5),
    "labels_swin_b": Recipe(
        LABELS, SWIN_B, batch=1, memory=6, disk=1, segmenter="segmenter_swin_b"
    ),
    "segmenter_swin_b_800": Recipe(SEGMENTER, SWIN_B, batch=1, memory=12, disk=5, overrides=LARGE),
    "detection": Recipe(DETECTION, ("coco",), memory=9, updates=4),
    "bounding_box": _mpm("bounding_box"),
    "resnext50": _mpm("resnext50"),
    "object_masks": _mpm("object_masks"),
}
