"""The model card of an export: data, recipe, results and hashes, for people and for a model hub."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData
from lightning.pytorch.utilities import rank_zero_warn

from datamodules.files.errors import MissingInputError, UserError
from modules.weights.classifier_folder import fingerprint
from modules.weights.named_models import ORIGIN
from pipeline.drawing.markdown_table import markdown_table
from pipeline.evaluation.summaries import RobustnessSummary, ThreatRow
from pipeline.runs.manifest import Manifest
from pipeline.runs.metrics import Metrics
from pipeline.runs.stages import EVALUATION

TRAINED = ("adversarial-robustness", "part-supervision")
USAGE = {
    "config.json": (
        "timm, whose input is normalised (mean and std are in `config.json`)",
        'timm.create_model("local-dir:FOLDER", pretrained=True)',
    ),
    "part_network.json": (
        "this project, images in [0, 1]",
        "from modules.weights.classifier_folder import load_classifier\n"
        'load_classifier(Path("FOLDER"))',
    ),
    "model.onnx": (
        "onnxruntime, images in [0, 1]",
        'onnxruntime.InferenceSession("model.onnx").run(["logits"], {"images": images})',
    ),
    "model.pt2": (
        "torch alone, images in [0, 1]",
        'torch.export.load("model.pt2").module()(images)',
    ),
}


@dataclass(frozen=True)
class CardContent:
    """What a card is made of.

    Attributes:
        run: folder that may hold its configuration, metrics, manifest or origin.
        title: name of the model.
        architecture: timm name or structure and timm name.
        num_classes: object categories.
        num_parameters: parameters at inference.
        image_size: side of the square input, pixels.
        files: SHA-256 of each exported file.
        evaluation: run folder of its evaluation, where there is one: see `find_evaluation`.
        dataset: name of the data set that it was evaluated on.
        license: licence of the weights, an identifier that the hub knows.
    """

    run: Path
    title: str
    architecture: str
    num_classes: int
    num_parameters: int
    image_size: int
    files: Mapping[str, str]
    evaluation: Path | None
    dataset: str
    license: str | None


def model_card(content: CardContent) -> str:
    """Markdown with the YAML front matter of a model hub.

    What is not known, such as the recipe of a network that was trained elsewhere, is left out.
    """
    threats = RobustnessSummary.read(content.evaluation).threats if content.evaluation else []
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=content.dataset,
            dataset_name=content.dataset,
            metric_type="accuracy",
            metric_name=f"accuracy, {_threat_name(row)}",
            metric_value=round(row.accuracy, 4),
        )
        for row in threats
    ]
    front = ModelCardData(
        license=content.license,
        library_name="timm" if "config.json" in content.files else "pytorch",
        pipeline_tag="image-classification",
        tags=["image-classification", *(TRAINED if _config(content.run) else ())],
        model_name=content.title,
        eval_results=results or None,
    )
    sections = [
        f"# {content.title}",
        f"{content.architecture}, {content.num_parameters:,} parameters at inference, "
        f"{content.num_classes} classes, RGB images of {content.image_size} x "
        f"{content.image_size} pixels.",
        *_usage(content.files),
        *_origin(content.run),
        *_training(content.run),
        *_results(content, threats),
        "## Files",
        markdown_table(
            ("file", "SHA-256"), [(f"`{n}`", f"`{h}`") for n, h in content.files.items()]
        ),
    ]
    return (
        f"---\n{front.to_yaml()}\n---\n\n" + "\n\n".join(part for part in sections if part) + "\n"
    )


def find_evaluation(asked: Path | None, run: Path, model: Path) -> Path | None:
    """The run folder of a model's evaluation, None if it has none.

    Args:
        asked: folder that must be it.
        run: run folder of the model, whose name leads to the evaluation if none is asked for.
        model: the model.

    Raises:
        MissingInputError: if there is no summary where it was asked for.
        UserError: if the folder asked for evaluates other weights.
    """
    folder = asked or run.parent / EVALUATION.name / run.name
    if not (folder / RobustnessSummary.file).is_file():
        if asked is not None:
            raise MissingInputError(f"{asked} has no summary.json: run make evaluate first")
        return None
    settings = folder / "records" / "settings.json"
    if settings.is_file() and json.loads(settings.read_text())["model"] != fingerprint(model):
        message = f"{folder} evaluates other weights than those of {model}"
        if asked is not None:
            raise UserError(f"{message}: evaluate them anew or name another --evaluation")
        rank_zero_warn(f"{message}, so the card has no results: evaluate them anew")
        return None
    return folder


def _usage(files: Mapping[str, str]) -> list[str]:
    known = [USAGE[name] for name in USAGE if name in files]
    return ["## Use", *(f"With {what}:\n\n```python\n{code}\n```" for what, code in known)]


def origin_of(run: Path) -> dict[str, Any]:
    """What is known of imported weights; empty for those trained here."""
    file = run / ORIGIN
    return json.loads(file.read_text()) if file.is_file() else {}


def _origin(run: Path) -> list[str]:
    """Where imported weights come from."""
    origin = origin_of(run)
    if not origin:
        return []
    notes = "".join(f"\n- {note}" for note in origin["notes"])
    return ["## Origin", f"Imported from `{origin['file']}`, SHA-256 `{origin['sha256']}`.", notes]


def _config(run: Path) -> dict[str, Any]:
    """The configuration of a run; empty for weights that were not trained here."""
    file = run / "config.yaml"
    return yaml.safe_load(file.read_text()) if file.is_file() else {}


def _training(run: Path) -> list[str]:
    """Data and recipe of a run folder, and what it was made with."""
    config = _config(run)
    if not config:
        return []
    sections = ["## Data"]
    if (run / "vocabulary.json").is_file():
        vocabulary = json.loads((run / "vocabulary.json").read_text())
        counts = [f"{len(vocabulary[k])} {k}" for k in ("objects", "parts") if k in vocabulary]
        sections.append(f"Part vocabulary: {', '.join(counts)}.")
    sections.append(_settings({"data": config["data"].get("init_args", {})}))
    trainer = config["trainer"]
    kept = ("max_epochs", "max_steps", "devices", "num_nodes", "precision")
    recipe = {
        "model": config["model"].get("init_args", {}),
        "trainer": {name: trainer.get(name) for name in kept},
        "ema_decay": config.get("ema_decay"),
    }
    sections += ["## Recipe", f"`{config['model']['class_path']}`:", _settings(recipe)]
    if manifest := Manifest.find(run):
        made = {"git": manifest.git, **manifest.versions}
        sections.append("Made with " + ", ".join(f"{k} {v}" for k, v in made.items()) + ".")
        inputs = [(f"`{k}`", f"`{_short(v)}`") for k, v in manifest.inputs.items()]
        sections.append(markdown_table(("input", "hash"), inputs))
    return sections


def _results(content: CardContent, threats: Sequence[ThreatRow]) -> list[str]:
    sections = []
    if metrics := Metrics.find(content.run):
        shown = ", ".join(f"{k} {v:.4g}" for k, v in metrics.values.items())
        sections.append(f"Best checkpoint by validation while training: {shown}.")
    if threats:
        rows = [
            (
                _threat_name(row),
                f"{row.accuracy:.1%}",
                "{:.1%} to {:.1%}".format(*row.ci95),
                str(row.n),
            )
            for row in threats
        ]
        sections.append(markdown_table(("threat", "accuracy", "95 % interval", "images"), rows))
    return ["## Results", *sections] if sections else []


def _threat_name(row: ThreatRow) -> str:
    if not row.norm:
        return row.name
    eps = f"{row.eps * 255:.3g}/255" if row.norm == "linf" else f"{row.eps:.4g}"
    return f"{row.name} ({row.norm} {eps})"


def _settings(content: Mapping[str, Any], prefix: str = "") -> str:
    return markdown_table(("setting", "value"), _rows(content, prefix))


def _rows(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """One row a setting that is set; of folders only the last name, they are other people's."""
    rows: list[tuple[str, str]] = []
    for name, value in content.items():
        if isinstance(value, Mapping):
            rows += _rows(value, f"{prefix}{name}.")
        elif value is not None:
            is_path = isinstance(value, str) and Path(value).is_absolute()
            rows.append((f"`{prefix}{name}`", f"`{_short(value) if is_path else value}`"))
    return rows


def _short(value: Any) -> str:
    """Without the folders before the last."""
    return str(value).rpartition("/")[2]
