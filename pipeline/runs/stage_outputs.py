"""Run folders: what a stage leaves for the next, and the manifest that vouches for it."""

import hashlib
import json
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.trainer.states import TrainerFn

from datamodules.files.errors import MissingInputError, UserError
from datamodules.files.json_files import write_json
from pipeline.runs.best_checkpoint import is_best

PACKAGES = ("torch", "torchvision", "lightning", "timm", "pyautoattack", "torchattacks", "pyarrow")

# A run may go on with other values of these: they change where and how long, not what.
FREE_KEYS = (
    "ckpt_path",
    "trainer.accelerator",
    "trainer.default_root_dir",
    "trainer.devices",
    "trainer.enable_",
    "trainer.fast_dev_run",
    "trainer.log_every_n_steps",
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.max_time",
    "trainer.num_nodes",
    "trainer.plugins",
    "trainer.strategy",
    "data.init_args.num_workers",
    # more images or threats for an evaluation; its records are checked one by one
    "data.init_args.images",
    "model.init_args.threats",
    "data.init_args.sources",
    "data.init_args.max_images",
)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(run: Path) -> dict[str, Any]:
    """The manifest of a run folder.

    Raises:
        MissingInputError: if the folder has none.
        UserError: if it is not JSON.
    """
    path = run / "manifest.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise MissingInputError(f"{path} does not exist") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): run that stage again") from None


def require_complete(run: Path, command: str, vocabulary_hash: str | None = None) -> None:
    """Refuses the output of an earlier stage that is missing, incomplete or of other parts.

    Args:
        run: run folder of the earlier stage.
        command: the command that makes it, for the message.
        vocabulary_hash: when given, the run must have been made for this vocabulary.

    Raises:
        MissingInputError: if there is no run folder.
        UserError: if the run is not complete or was made for another vocabulary.
    """
    if not (run / "manifest.json").is_file():
        raise MissingInputError(f"{run} holds no finished stage: run {command} first")
    manifest = read_manifest(run)
    if manifest["state"] != "complete":
        raise UserError(f"{run} is {manifest['state']}, not complete: run {command} to finish it")
    made_for = manifest["inputs"].get("vocabulary")
    if vocabulary_hash is not None and made_for != vocabulary_hash:
        raise UserError(
            f"{run} was made for another part vocabulary ({str(made_for)[:12]}, the data has "
            f"{vocabulary_hash[:12]}): use the annotations it was made with, or run {command} again"
        )


def config_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Names and values of the settings that differ and may not change within a run."""
    old_flat, new_flat = _flatten(old), _flatten(new)
    return [
        f"{key}: {old_flat.get(key)} -> {new_flat.get(key)}"
        for key in sorted(old_flat.keys() | new_flat.keys())
        if old_flat.get(key) != new_flat.get(key) and not key.startswith(FREE_KEYS)
    ]


def refuse_changed_config(run: Path, config: dict[str, Any]) -> None:
    """Refuses to go on with a run under other settings.

    Raises:
        UserError: naming the settings that differ.
    """
    if not (run / "manifest.json").is_file():
        return
    differences = config_differences(read_manifest(run)["config"], config)
    if differences:
        raise UserError(
            f"{run} was started with other settings ({'; '.join(differences)}): "
            "give the new run another NAME=, or delete the folder"
        )


def is_complete(run: Path, config: Any, plain: dict[str, Any]) -> bool:
    """Whether a run ended well, from the same inputs, to the same extent, and is still whole.

    Args:
        run: run folder.
        config: the resolved configuration.
        plain: the same as `plain_config` gives it.
    """
    if not (run / "manifest.json").is_file():
        return False
    manifest = read_manifest(run)
    extents = [
        (
            [content["trainer"].get(key) for key in ("max_epochs", "max_steps")],
            content["data"]["init_args"].get("images"),
            content["model"]["init_args"].get("threats"),
        )
        for content in (manifest["config"], plain)
    ]
    inputs = {key: value for key, value in manifest["inputs"].items() if key != "vocabulary"}
    return (
        manifest["state"] == "complete"
        and extents[0] == extents[1]
        and inputs == _earlier_stages(config)
        and all((run / name).is_file() for name in manifest["outputs"])
    )


class StageOutputs(SaveConfigCallback):
    """Writes `vocabulary.json`, `metrics.json` and the manifest of a run.

    The manifest says `running` from the first moment; `complete` is written by
    `mark_complete` once the stage has ended well.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leaves configuration and manifest of a run alone that is only measured again."""
        made = (Path(trainer.default_root_dir) / "manifest.json").is_file()
        if not trainer.strategy.broadcast(stage == "validate" and made):
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the vocabulary and the running manifest (rank 0 only)."""
        root = Path(trainer.default_root_dir)
        inputs = _earlier_stages(self.config)
        # downstream detection has no parts
        if vocabulary := getattr(trainer.datamodule, "vocabulary", None):  # type: ignore[attr-defined]
            vocabulary.save(root / "vocabulary.json")
            inputs = {"vocabulary": vocabulary.content_hash, **inputs}
        if keys := getattr(trainer.datamodule, "split_keys", None):  # type: ignore[attr-defined]
            write_json(root / "split.json", keys)
        manifest = {
            "stage": root.name,
            "state": "running",
            "config": plain_config(self.parser, self.config),
            "inputs": inputs,
            "outputs": {},
            "versions": {package: version(package) for package in PACKAGES},
            "git": _git_revision(),
        }
        write_json(root / "manifest.json", manifest)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the validation metrics of the best checkpoint in `metrics.json`."""
        if trainer.sanity_checking or not is_best(trainer) or not trainer.is_global_zero:
            return
        path = Path(trainer.default_root_dir) / "metrics.json"
        metrics = {
            name.removeprefix("val/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("val/")
        }
        position = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        if trainer.state.fn == TrainerFn.VALIDATING and path.is_file():
            old = json.loads(path.read_text())  # the fit knows where its best checkpoint was
            position = {name: old[name] for name in position if name in old}
        write_json(path, metrics | position)


def mark_complete(run: Path) -> None:
    """Ends a run: hashes its outputs into the manifest and sets its state to `complete`."""
    manifest = read_manifest(run)
    manifest["outputs"] = {
        str(path.relative_to(run)): sha256(path)
        for path in sorted(run.rglob("*"))
        if path.is_file()
        and path.name != "manifest.json"
        and not {"generalisation", "subsets"} & {*path.relative_to(run).parts}  # runs of their own
        and not path.name.startswith(("events.out", "."))
    }
    manifest["state"] = "complete"
    write_json(run / "manifest.json", manifest)


def plain_config(parser: Any, config: Any) -> dict[str, Any]:
    """The resolved configuration as plain JSON-able values."""
    return json.loads(json.dumps(yaml.safe_load(parser.dump(config, skip_none=False)), default=str))


def _flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(config, dict):
        return {prefix: config}
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _earlier_stages(config: Any) -> dict[str, str]:
    """Hashes of the manifests of all run folders that the configuration names."""
    runs = {}
    for part in ("model", "data"):
        for name, value in vars(config[part].get("init_args", {})).items():
            manifest = Path(value) / "manifest.json" if isinstance(value, str | Path) else None
            if manifest is not None and manifest.is_file():
                runs[name] = f"{value} sha256:{sha256(manifest)}"
    return runs


def _git_revision() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
