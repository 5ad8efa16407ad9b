"""Exports a trained recogniser with a model card, or imports one that was trained elsewhere.

python -m pipeline.export.export_model --model runs/stage3_mpm --out FOLDER --format timm onnx torch_export

With --architecture the model is a checkpoint of any code under that timm network's names, or one
that the authors of PartImageNet++ released; the folder then serves `make evaluate MODEL=FOLDER`.
"""

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from datamodules.files.atomic_files import write_text
from datamodules.files.errors import UserError
from datamodules.files.json_files import write_json
from modules.networks.normalisation import Normalised
from modules.weights.classifier_folder import export_timm, fingerprint, load_classifier, locate
from modules.weights.export_formats import INPUT, export_onnx, export_program
from modules.weights.part_network_folder import DeployedPartNetwork, write_part_network
from pipeline.export.import_checkpoint import ForeignModel, import_model
from pipeline.export.model_card import CardContent, find_evaluation, model_card
from pipeline.runs.error_exit import error_exit
from pipeline.runs.manifest import MANIFEST, require_complete, sha256

Format = Literal["timm", "part_network", "onnx", "torch_export"]
FORMATS: tuple[Format, ...] = ("timm", "part_network", "onnx", "torch_export")
WRITERS = {"onnx": ("model.onnx", export_onnx), "torch_export": ("model.pt2", export_program)}
RECORD = "export.json"


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
        model: as for `load_classifier`.
        out: folder, new or with an earlier export of the same weights.
        formats: what to write; `timm` also is what the other programs of this project read,
            `part_network` takes its place for networks with parts at inference.
        evaluation: run folder of `make evaluate`; by default that of the run folder's name.
        title: name on the card, by default that of the model's folder.
        dataset: name of the data set of the evaluation.
        license: licence of the weights, for the card.

    Returns:
        The model card.

    Raises:
        MissingInputError: if there is no such model.
        UserError: if the folder holds anything else, the model is not complete, its structure
            has no such format, or a package is missing.
    """
    if (model / MANIFEST).is_file():
        require_complete(model, "make stage3-mpm")
    classifier = load_classifier(model)
    _refuse_other_content(out, fingerprint(model))
    own: Format = "timm" if isinstance(classifier, Normalised) else "part_network"
    if wrong := {"timm", "part_network"}.intersection(formats) - {own}:
        raise UserError(f"{model} has no {wrong.pop()} form: use --format {own}")
    run = _run_folder(model.resolve())
    title = title or (run.name if model.is_dir() else model.stem)
    evaluation = find_evaluation(evaluation, run, model)
    out.mkdir(parents=True, exist_ok=True)
    size = _image_size(classifier)
    differences = {}
    for name in formats:
        if name in WRITERS:
            file, write = WRITERS[name]
            metadata = {"model": title, "fingerprint": fingerprint(model)}
            differences[file] = write(classifier, out / file, size, metadata)
        else:
            _write_weights(classifier, model, out)
    written = sorted(p for p in out.iterdir() if p.name not in (RECORD, "README.md"))
    files = {path.name: sha256(path) for path in written}
    content = CardContent(
        run=run,
        title=title,
        architecture=_architecture(classifier),
        num_classes=classifier.num_classes,
        num_parameters=sum(p.numel() for p in classifier.parameters()),
        image_size=size,
        files=files,
        evaluation=evaluation,
        dataset=dataset or ("imagenet-1k" if classifier.num_classes == 1000 else "custom"),
        license=license,
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


def _refuse_other_content(out: Path, model: str) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give a folder")
    present = [path for path in out.glob("*") if not path.name.startswith(".")]
    if not present:
        return
    record = json.loads((out / RECORD).read_text()) if (out / RECORD).is_file() else {}
    if record.get("fingerprint") != model:
        what = "the export of other weights" if record else "other files"
        raise UserError(f"{out} holds {what}: give another --out")


def _write_weights(classifier: Normalised | DeployedPartNetwork, model: Path, out: Path) -> None:
    """Writes description and weights beside what the folder has."""
    folder = out / ".weights"
    if isinstance(classifier, DeployedPartNetwork):
        write_part_network(classifier, folder)
    else:
        config = json.loads((locate(model)[0] / "config.json").read_text())
        arguments = {k: v for k, v in config.get("model_args", {}).items() if k != "num_classes"}
        export_timm(
            classifier.network,
            folder,
            architecture=config["architecture"],
            model_args=arguments,
            num_classes=classifier.num_classes,
            mean=classifier.normalise.mean.flatten().tolist(),
            std=classifier.normalise.std.flatten().tolist(),
            image_size=_image_size(classifier),
        )
    for path in folder.iterdir():
        os.replace(path, out / path.name)
    shutil.rmtree(folder)


def _image_size(classifier: Normalised | DeployedPartNetwork) -> int:
    if isinstance(classifier, DeployedPartNetwork):
        return int(classifier.description["image_size"])
    config: Any = classifier.network.pretrained_cfg
    return int(config["input_size"][1])


def _architecture(classifier: Normalised | DeployedPartNetwork) -> str:
    if isinstance(classifier, DeployedPartNetwork):
        return "{structure} on {architecture}".format(**classifier.description)
    config: Any = classifier.network.pretrained_cfg
    return str(config["architecture"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of `python -m pipeline.export.export_model`."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.export.export_model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=Path, required=True, help="run or timm folder, or a file")
    parser.add_argument("--out", type=Path, required=True, help="folder to make or to add to")
    parser.add_argument("--format", nargs="+", choices=FORMATS, help="default: the weights")
    parser.add_argument("--evaluation", type=Path, help="run folder of its evaluation")
    parser.add_argument("--title", help="name on the model card")
    parser.add_argument("--dataset", help="name of the data set it was evaluated on")
    parser.add_argument("--license", help="licence of the weights, such as mit")
    foreign = parser.add_argument_group("a checkpoint of another code")
    foreign.add_argument("--architecture", help="timm network, such as resnet50")
    foreign.add_argument("--model-args", type=json.loads, default={}, help="JSON for timm")
    foreign.add_argument("--structure", choices=("bypass", "downsampled"), default="bypass")
    foreign.add_argument("--num-classes", type=int, default=1000)
    foreign.add_argument("--num-part-classes", type=int, default=3311, help="of two-stage")
    foreign.add_argument("--image-size", type=int, default=224)
    foreign.add_argument("--mean", type=float, nargs=3, help="where the file has none")
    foreign.add_argument("--std", type=float, nargs=3)
    given = parser.parse_args(arguments)
    names = ForeignModel.__dataclass_fields__
    model: Path = given.model
    imported = given.out.with_name(f".{given.out.name}.imported")
    try:
        if given.architecture:
            if (given.mean is None) != (given.std is None):
                raise UserError("--mean and --std go together")
            how = ForeignModel(**{name: getattr(given, name) for name in names})
            import_model(model, imported, how)
            model = imported
        own: Format = "timm" if (locate(model)[0] / "config.json").is_file() else "part_network"
        card = export_model(
            model,
            given.out,
            given.format or (own,),
            evaluation=given.evaluation,
            title=given.title or (given.model.stem if given.architecture else None),
            dataset=given.dataset,
            license=given.license,
        )
    finally:
        shutil.rmtree(imported, ignore_errors=True)
    print(f"{given.out} is written; {card} describes it")


if __name__ == "__main__":
    with error_exit():
        main()
