"""The callback that writes what every run folder holds besides its stage's own outputs."""

import subprocess
from importlib.metadata import version
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.trainer.states import TrainerFn

from datamodules.files.json_files import write_json
from pipeline.runs.best_checkpoint import is_best
from pipeline.runs.manifest import MANIFEST, Manifest
from pipeline.runs.metrics import Metrics
from pipeline.runs.settings import earlier_runs, plain_config

PACKAGES = ("torch", "torchvision", "lightning", "timm", "pyautoattack", "torchattacks", "pyarrow")


class StageOutputs(SaveConfigCallback):
    """Writes `config.yaml`, `vocabulary.json`, `metrics.json` and the manifest of a run.

    The manifest says `running` from the first moment; `complete` is written by
    `mark_complete` once the stage has ended well.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leaves configuration and manifest of a run alone that is only measured again."""
        made = (Path(trainer.default_root_dir) / MANIFEST).is_file()
        if not trainer.strategy.broadcast(stage == "validate" and made):
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes settings, vocabulary and the running manifest (rank 0 only)."""
        root = Path(trainer.default_root_dir)
        root.mkdir(parents=True, exist_ok=True)
        # not Lightning's own way, which takes the logger's folder
        self.parser.save(
            self.config, root / "config.yaml", skip_none=False, overwrite=True, multifile=False
        )
        config = plain_config(self.parser, self.config)
        inputs = earlier_runs(config)
        # downstream detection has no parts
        if vocabulary := getattr(trainer.datamodule, "vocabulary", None):  # type: ignore[attr-defined]
            vocabulary.save(root / "vocabulary.json")
            inputs = {"vocabulary": vocabulary.content_hash, **inputs}
        if keys := getattr(trainer.datamodule, "split_keys", None):  # type: ignore[attr-defined]
            write_json(root / "split.json", keys)
        Manifest(
            root.name,
            config=config,
            inputs=inputs,
            versions={package: version(package) for package in PACKAGES},
            git=_git_revision(),
        ).write(root)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the validation metrics of the best checkpoint in `metrics.json`."""
        if trainer.sanity_checking or not is_best(trainer) or not trainer.is_global_zero:
            return
        root = Path(trainer.default_root_dir)
        values = {
            name.removeprefix("val/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("val/")
        }
        metrics = Metrics(values, trainer.current_epoch, trainer.global_step)
        if trainer.state.fn == TrainerFn.VALIDATING and (old := Metrics.find(root)):
            # the fit knows where its best checkpoint was
            metrics = Metrics(values, old.epoch, old.step)
        metrics.write(root)


def _git_revision() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
