"""What ran: settings, versions and counts, read from the run folders."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import yaml

from datamodules.files.errors import UserError
from datamodules.labels.label_set import checked_shards
from datamodules.labels.pseudo_labels import finished_shards, read_columns
from pipeline.labelling.quality import LabelQuality
from pipeline.runs.manifest import Manifest
from pipeline.runs.metrics import Metrics

SUMMARISED = (
    "max_epochs",
    "max_steps",
    "batch_size",
    "backbone",
    "architecture",
    "part_loss_weight",
    "steps",
    "eps",
    "lr",
    "image_size",
    "seed",
)


@dataclass(frozen=True)
class StageFacts:
    """What ran in one run folder.

    Attributes:
        name: Folder below the runs folder.
        state: `running`, `complete`, or `no manifest`.
        git: Revision of the source.
        summary: A few settings as (name, value).
        config: The whole configuration as YAML.
        versions: Package versions.
        inputs: What the stage was given, with hashes.
        outputs: Files it left, with hashes.
        metrics: Validation metrics by name.
    """

    name: str
    state: str
    git: str
    summary: list[tuple[str, str]]
    config: str
    versions: dict[str, str]
    inputs: dict[str, str]
    outputs: dict[str, str]
    metrics: dict[str, float]


@dataclass(frozen=True)
class LabelFacts:
    """What stage 2 wrote.

    Attributes:
        images: Rows, one a train image.
        labelled: Rows with at least one part.
        empty: Readable images without any part.
        errors: Rows with an error.
        instances: Parts in all.
        quality: How good they are, if it was measured.
    """

    images: int
    labelled: int
    empty: int
    errors: int
    instances: int
    quality: LabelQuality | None


def read_json(path: Path) -> dict[str, Any] | None:
    """Reads a JSON object; None when there is no such file.

    Raises:
        UserError: If the file is not JSON.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(
            f"{path} is damaged ({error}): run the stage's subcommand validate, which writes "
            "it anew"
        ) from None


def config_leaves(config: Any, path: str = "") -> list[tuple[str, Any]]:
    """Settings by their path, such as `model.init_args.lr`."""
    if not isinstance(config, dict):
        return [(path, config)]
    return [leaf for key, value in config.items() for leaf in config_leaves(value, f"{path}.{key}")]


def stage_facts(run: Path, name: str) -> StageFacts:
    """Reads manifest and metrics of a run folder under a name; what is missing stays empty.

    Raises:
        UserError: If `manifest.json` or `metrics.json` is not JSON.
    """
    manifest, metrics = Manifest.find(run), Metrics.find(run)
    config = manifest.config if manifest else {}
    summary = {
        path.rsplit(".", 1)[-1]: f"{value:.4g}" if isinstance(value, float) else str(value)
        for path, value in config_leaves(config)
        # An optimiser's eps is not the attack's
        if value not in (None, -1) and not path.endswith("optimizer.init_args.eps")
    }
    return StageFacts(
        name=name,
        state=manifest.state if manifest else "no manifest",
        git=manifest.git if manifest else "unknown",
        summary=[(name, summary[name]) for name in SUMMARISED if name in summary],
        config=yaml.safe_dump(config, sort_keys=False) if config else "",
        versions=manifest.versions if manifest else {},
        inputs=manifest.inputs if manifest else {},
        outputs=manifest.outputs if manifest else {},
        metrics=metrics.values if metrics else {},
    )


def label_facts(run: Path) -> LabelFacts | None:
    """Counts the labels of a stage 2 run folder without decoding a mask; None without shards.

    Raises:
        UserError: If a shard is damaged, or a complete run's are not one sound label set.
    """
    if (manifest := Manifest.find(run)) and manifest.is_complete:
        checked_shards(run)
    images = labelled = errors = empty = instances = 0
    files = finished_shards(run)
    for file in files:
        table = read_columns(file, "error", "instances")
        counts = pc.fill_null(pc.list_value_length(table["instances"]), 0)
        failed = pc.not_equal(pc.fill_null(table["error"], ""), "")
        has_parts = pc.greater(counts, 0)
        images += table.num_rows
        labelled += pc.sum(has_parts).as_py() or 0
        errors += pc.sum(failed).as_py() or 0
        empty += pc.sum(pc.and_not(pc.invert(has_parts), failed)).as_py() or 0
        instances += pc.sum(counts).as_py() or 0
    quality = LabelQuality.find(run)
    if not files:
        return None
    return LabelFacts(images, labelled, empty, errors, instances, quality)
