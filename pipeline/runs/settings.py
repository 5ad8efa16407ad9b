"""The settings of a run: which may change while it goes on, and what differs."""

import json
from pathlib import Path
from typing import Any

import yaml

from datamodules.files.errors import UserError
from pipeline.runs.manifest import Manifest, hashes_of_runs

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


def plain_config(parser: Any, config: Any) -> dict[str, Any]:
    """The resolved configuration as plain JSON-able values."""
    return json.loads(json.dumps(yaml.safe_load(parser.dump(config, skip_none=False)), default=str))


def differences(old: dict[str, Any], new: dict[str, Any], free: tuple[str, ...] = ()) -> list[str]:
    """Names and values of the settings that differ and may not change within a run.

    Args:
        old: settings of the run.
        new: those now asked for.
        free: names of settings that may change besides `FREE_KEYS`, or how these begin.
    """
    old_flat, new_flat = _flatten(old), _flatten(new)
    return [
        f"{key}: {old_flat.get(key)} -> {new_flat.get(key)}"
        for key in sorted(old_flat.keys() | new_flat.keys())
        if old_flat.get(key) != new_flat.get(key) and not key.startswith((*FREE_KEYS, *free))
    ]


def refuse_changed_config(run: Path, config: dict[str, Any], free: tuple[str, ...] = ()) -> None:
    """Refuses to go on with a run under other settings.

    Args:
        run: run folder.
        config: the resolved configuration as plain values.
        free: see `differences`.

    Raises:
        UserError: naming the settings that differ.
    """
    manifest = Manifest.find(run)
    if manifest is not None and (found := differences(manifest.config, config, free)):
        raise UserError(
            f"{run} was started with other settings ({'; '.join(found)}): "
            "give the new run another NAME=, or delete the folder"
        )


def is_done(run: Path, config: dict[str, Any]) -> bool:
    """Whether a run ended well, from the same inputs, to the same extent, and is still whole.

    Args:
        run: run folder.
        config: the resolved configuration as plain values.
    """
    manifest = Manifest.find(run)
    if manifest is None or not manifest.is_complete:
        return False
    inputs = {key: value for key, value in manifest.inputs.items() if key != "vocabulary"}
    return (
        _extent(manifest.config) == _extent(config)
        and inputs == earlier_runs(config)
        and all((run / name).is_file() for name in manifest.outputs)
    )


def earlier_runs(config: dict[str, Any]) -> dict[str, str]:
    """Hashes of the manifests of all run folders that a configuration names, by setting."""
    found: dict[str, str] = {}
    for part in ("model", "data"):
        found |= hashes_of_runs(config[part].get("init_args") or {})
    return found


def _extent(config: dict[str, Any]) -> tuple[Any, ...]:
    return (
        config["trainer"].get("max_epochs"),
        config["trainer"].get("max_steps"),
        config["data"]["init_args"].get("images"),
        config["model"]["init_args"].get("threats"),
    )


def _flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(config, list):
        config = {str(position): value for position, value in enumerate(config)}
    if not isinstance(config, dict) or not config:
        if prefix.endswith("class_path"):  # where a class lies is no setting
            return {prefix: str(config).rpartition(".")[2]}
        return {prefix: config}
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
