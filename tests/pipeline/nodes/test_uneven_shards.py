"""Two processes validate every few steps though images do not divide among them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from pipeline.runs.manifest import Manifest
from tests.pipeline.commands import run, stage_args


class Validations(Callback):
    """Appends step and images of each validation of this process to `validations_<rank>.jsonl`."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.keys: list[list[str]] = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.keys.append(list(batch["key"]))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        file = Path(trainer.default_root_dir) / f"validations_{trainer.global_rank}.jsonl"
        with file.open("a") as stream:
            stream.write(json.dumps({"step": trainer.global_step, "batches": self.keys}) + "\n")


@pytest.mark.parametrize(
    ("stage", "writer", "settings", "images"),
    [
        # 21 images to train on are 10.5 for each process, 3 to validate on 1.5
        pytest.param(
            "stage1_segmenter",
            "SegmenterMetrics",
            ["--data.init_args.batch_size=2", "--data.init_args.val_batch_size=1"],
            3,
            id="stage1",
        ),
        pytest.param(
            "stage3_mpm",
            "ExportRecogniser",
            ["--data.init_args.batch_size=5", "--data.init_args.val_images=11"],
            11,
            id="stage3",
        ),
    ],
)
def test_every_process_validates_at_the_same_steps(
    stage: str,
    writer: str,
    settings: list[str],
    images: int,
    finished_runs: Path,
    shapes_root: Path,
    tmp_path: Path,
) -> None:
    names = [f"{Validations.__module__}.Validations", writer]
    overlay = tmp_path / "overlay.yaml"
    callbacks = [{"class_path": name} for name in names]
    overlay.write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    folder = tmp_path / stage
    args = stage_args(
        stage,
        shapes_root,
        finished_runs,
        f"-c={overlay}",
        f"--trainer.default_root_dir={folder}",
        *settings,
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
        "--trainer.max_steps=8",  # not at the end of an epoch
        "--trainer.check_val_every_n_epoch=null",
        "--trainer.val_check_interval=3",
    )
    code, output = run(args)
    assert code == 0, output
    assert Manifest.read(folder).is_complete
    ranks = [
        [
            json.loads(line)
            for line in (folder / f"validations_{rank}.jsonl").read_text().split("\n")[:-1]
        ]
        for rank in range(2)
    ]
    steps = [[validation["step"] for validation in rank] for rank in ranks]
    assert steps[0] == steps[1] == [3, 6]
    for validations in zip(*ranks, strict=True):
        batches = [validation["batches"] for validation in validations]
        assert len(batches[0]) > len(batches[1])  # that is uneven
        keys = [key for rank in batches for batch in rank for key in batch]
        assert len(keys) == len({*keys}) == images
