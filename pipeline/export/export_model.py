"""Exports a trained recogniser with a model card, or imports one that was trained elsewhere."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from datamodules.files.atomic_files import write_text
from datamodules.files.errors import UserError
from datamodules.files.json_files import write_json
from modules.networks.normalisation import Normalised
from modules.networks.preprocessing import ImageFormat
from modules.weights.classifier_export import export_timm
from modules.weights.classifier_folder import (
    architecture_of,
    fingerprint,
    image_format,
    load_classifier,
    locate,
)
from modules.weights.export_formats import INPUT, export_onnx, export_program
from modules.weights.named_models import named_model
from modules.weights.part_network_folder import DeployedPartNetwork, write_part_network
from pipeline.export.import_checkpoint import ForeignModel, import_model
from pipeline.export.model_card import CardContent, find_evaluation, model_card, origin_of
from pipeline.runs.manifest import MANIFEST, require_complete, sha256
from pipeline.runs.refuse_mixing import refuse_mixing
from pipeline.runs.stages import MPM

Format = Literal["timm", "part_network", "onnx", "torch_export"]
FORMATS: tuple[Format, ...] = ("timm", "part_network", "onnx", "torch_export")
WRITERS = {"onnx": ("model.onnx", export_onnx), "torch_export": ("model.pt2", export_program)}
RECORD = "export.json"
RESULTS = ("input", "input_of_timm", "largest_difference_of_a_logit", "files")  # of the record


def export_model(
    model: Path,
    out: Path,
    formats: Sequence[Format] = ("timm",),
    *,
    evaluation: Path | None = None,
    title: str | None = None,
    dataset: str | None = None,
    license: str | None = None,
) -> Path:
    """Writes a trained classifier in other formats, with a model card.

    Every file appears whole, and ONNX and `torch.export` only when their logits are the network's.

    Args:
        model: as for `load_classifier`, also a word.
        out: folder, new or with an earlier export of the same weights.
        formats: what to write; `timm` also is what the other programs of this project read,
            `part_network` takes its place for networks with parts at inference.
        evaluation: run folder of `make evaluate`; by default that of the run folder's name.
        title: name on the card, by default that of the model's folder.
        dataset: name of the data set of the evaluation.
        license: licence of the weights, for the card; by default that of imported weights.

    Returns:
        The model card.

    Raises:
        MissingInputError: if there is no such model.
        UserError: if the folder holds anything else, the model is not complete, its structure
            has no such format, or a package is missing.
    """
    given, model = model, named_model(model)
    if (model / MANIFEST).is_file():
        require_complete(model, MPM.target)
    classifier = load_classifier(model)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give a folder")
    present = (path for path in out.glob("*") if not path.name.startswith("."))
    origin = {"fingerprint": fingerprint(model)}
    refuse_mixing(out / RECORD, origin, "give another --out", present, results=RESULTS)
    own: Format = "timm" if isinstance(classifier, Normalised) else "part_network"
    if wrong := {"timm", "part_network"}.intersection(formats) - {own}:
        raise UserError(f"{model} has no {wrong.pop()} form: use --format {own}")
    run = _run_folder(model.resolve())
    title = title or (given.name if model != given else run.name if model.is_dir() else model.stem)
    evaluation = find_evaluation(evaluation, run, model)
    out.mkdir(parents=True, exist_ok=True)
    images = image_format(classifier)
    assert images is not None  # it has a description
    size = images.size
    differences = {}
    for name in formats:
        if name in WRITERS:
            file, write = WRITERS[name]
            metadata = {"model": title, "fingerprint": fingerprint(model)}
            differences[file] = write(classifier, out / file, size, metadata)
        else:
            _write_weights(classifier, model, out, images)
    written = sorted(p for p in out.iterdir() if p.name not in (RECORD, "README.md"))
    files = {path.name: sha256(path) for path in written}
    content = CardContent(
        run=run,
        title=title,
        architecture=architecture_of(classifier),
        num_classes=classifier.num_classes,
        num_parameters=sum(p.numel() for p in classifier.parameters()),
        image_size=size,
        files=files,
        evaluation=evaluation,
        dataset=dataset or ("imagenet-1k" if classifier.num_classes == 1000 else "custom"),
        license=license or origin_of(run).get("license") or None,
    )
    card = out / "README.md"
    write_text(card, model_card(content))
    record = {
        "fingerprint": fingerprint(model),
        "input": INPUT.format(size=size),
        "input_of_timm": "as above, but normalised by the mean and std of config.json",
        "largest_difference_of_a_logit": differences,
        "files": files,
    }
    write_json(out / RECORD, record)
    return card


def _run_folder(model: Path) -> Path:
    """The folder that may know how a model was trained."""
    if model.is_dir():
        return model.parent if model.name == "export" else model
    return model.parent.parent if model.parent.name in ("checkpoints", "export") else model.parent


def _write_weights(
    classifier: Normalised | DeployedPartNetwork, model: Path, out: Path, images: ImageFormat
) -> None:
    """Writes description and weights beside what the folder has."""
    folder = out / ".weights"
    if isinstance(classifier, DeployedPartNetwork):
        write_part_network(classifier, folder)
    else:
        config = json.loads((locate(model)[0] / "config.json").read_text())
        mean, std = classifier.normalise.values
        arguments = {k: v for k, v in config.get("model_args", {}).items() if k != "num_classes"}
        export_timm(
            classifier.network,
            folder,
            architecture=config["architecture"],
            model_args=arguments,
            num_classes=classifier.num_classes,
            mean=mean,
            std=std,
            images=images,
        )
    for path in folder.iterdir():
        os.replace(path, out / path.name)
    shutil.rmtree(folder)


def main(
    model: Path,
    out: Path,
    format: Format | list[Format] | None = None,
    evaluation: Path | None = None,
    title: str | None = None,
    dataset: str | None = None,
    license: str | None = None,
    foreign: ForeignModel | None = None,
) -> None:
    """Exports a trained recogniser with a model card, or imports one that was trained elsewhere.

    With `foreign` the model is a checkpoint of any code under a timm network's names, or one that
    the authors of PartImageNet++ released; the folder then serves `make evaluate MODEL=FOLDER`.

    Args:
        model: run or timm folder, a file, or a word such as efficientnet_lite0.
        out: folder to make or to add to.
        format: what to write, by default the weights.
        evaluation: run folder of its evaluation.
        title: name on the model card.
        dataset: name of the data set it was evaluated on.
        license: licence of the weights, such as mit.
        foreign: how to read a checkpoint of another code.

    Raises:
        MissingInputError: if there is no such model.
        UserError: if it cannot be exported so, or `out` holds anything else.
    """
    imported = out.with_name(f".{out.name}.imported")
    try:
        if foreign is not None:
            title = title or model.stem
            print("\n".join(import_model(model, imported, foreign)))
            model = imported
        own: Format = "timm" if (locate(model)[0] / "config.json").is_file() else "part_network"
        formats = [format or own] if not isinstance(format, list) else format
        card = export_model(
            model,
            out,
            formats,
            evaluation=evaluation,
            title=title,
            dataset=dataset,
            license=license,
        )
    finally:
        shutil.rmtree(imported, ignore_errors=True)
    print(f"{out} is written; {card} describes it")
