"""The evaluation that is looked at: its folder, its images and its model, as it was run."""

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser

from datamodules.files.errors import MissingInputError, UserError
from datamodules.files.json_files import read_json
from datamodules.robustness import RobustnessDataModule
from modules.attacks.pixel_units import PixelDistance
from modules.attacks.threats import PGD, Threat
from modules.robustness_evaluator import RobustnessEvaluator
from pipeline.report.part_maps import STEPS
from pipeline.report.reading.evaluations import threat_title
from pipeline.report.strip import EPS
from pipeline.runs.manifest import MANIFEST, Manifest
from pipeline.runs.stages import EVALUATION, MPM

# what an evaluated image is
SHAPE = ("image_list", "files", "image_size", "resize", "interpolation")


@dataclass(frozen=True)
class Evaluated:
    """An evaluation, opened again.

    Attributes:
        folder: its run folder.
        data: its images, with the human parts where they are known.
        evaluator: its model, ready to be attacked.
        threat: what the pictures under attack are made with.
        title: that threat in words.
        settings: what `records/settings.json` says.
        model_run: run folder of the model; None where it is none.
        pinpp: annotations of the train images; None where none were named.
    """

    folder: Path
    data: RobustnessDataModule
    evaluator: RobustnessEvaluator
    threat: Threat
    title: str
    settings: dict[str, Any]
    model_run: Path | None
    pinpp: Path | None

    @property
    def runs(self) -> Path:
        """The folder of all runs."""
        return runs_of(self.folder)


def find_evaluation(run: Path) -> Path:
    """The run folder of an evaluation.

    Args:
        run: that folder itself, the run folder of the stage 3 model that was evaluated, or the
            folder of all runs if one model alone was evaluated.

    Raises:
        MissingInputError: if there is no such folder or evaluation.
        UserError: if the folder is of another stage, or holds several evaluations.
    """
    if not run.is_dir():
        raise MissingInputError(
            f"{run} is not a folder: set RUN= to a run folder of make evaluate or {MPM.target}, "
            "or to the folder of all runs"
        )
    if (run / "records" / "settings.json").is_file():
        return run
    if (run / MANIFEST).is_file():
        return _of_model(run)
    found = sorted(path.parent.parent for path in run.glob("evaluate/*/records/settings.json"))
    if not found:
        raise MissingInputError(f"{run} holds no evaluation: run make evaluate first")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UserError(f"{run} holds several evaluations ({names}): choose one, RUN={found[0]}")
    return found[0]


def _of_model(run: Path) -> Path:
    model = str((Manifest.read(run).config.get("model") or {}).get("class_path"))
    if model.rpartition(".")[2] not in ("MPM", "RobustnessEvaluator"):
        raise UserError(
            f"{run} is a run of another stage: set RUN= to a run folder of make evaluate or "
            f"{MPM.target}"
        )
    folder = run.absolute().parent / EVALUATION.name / run.absolute().name
    if model.endswith("RobustnessEvaluator") or not (folder / "records/settings.json").is_file():
        told = "" if model.endswith("RobustnessEvaluator") else f" MODEL={run}"
        raise MissingInputError(f"{run} has no records of an attack: run make evaluate{told} first")
    return folder


def runs_of(evaluation: Path) -> Path:
    """The folder of all runs that an evaluation lies in."""
    folders = evaluation.absolute().parents
    return next((one.parent for one in folders if one.name == EVALUATION.name), folders[0])


def open_evaluation(
    folder: Path,
    threat: str | None = None,
    imagenet: Path | None = None,
    pinpp: Path | None = None,
    pinpp_val: Path | None = None,
) -> Evaluated:
    """Opens an evaluation as it was run.

    Args:
        folder: its run folder.
        threat: name of one of its threats, for the pictures; None for a short PGD.
        imagenet: where the images are now, if not where they were.
        pinpp: where the annotations are now, likewise.
        pinpp_val: part annotations of the images, likewise.

    Raises:
        MissingInputError: if images, annotations or model are not where they were.
        UserError: if the images or the model are others than those that were evaluated, or the
            threat is unknown.
    """
    manifest = Manifest.find(folder)
    if manifest is None:
        raise MissingInputError(
            f"{folder} holds no {MANIFEST}, which says how it was made: run make evaluate again"
        )
    settings = read_json(folder / "records" / "settings.json", "run make evaluate again")
    specifications = manifest.model_arguments.get("threats") or {}
    chosen = _short_pgd(settings) if threat is None else _configured(specifications, threat, folder)
    data = _images(manifest.data_arguments, imagenet, pinpp, pinpp_val)
    recorded = {"files": data.settings["files"]} | settings  # earlier versions did not note them
    for name in SHAPE:
        if (old := recorded.get(name)) != (new := data.settings.get(name)):
            raise UserError(
                f"{folder} attacked other images than {data.split} holds ({name}: {old} -> {new}): "
                "set IMAGENET= to the folder that it was run with"
            )
    told = manifest.model_arguments.get("model")
    model = told if isinstance(told, Mapping) else _place(Path(str(told)), runs_of(folder))
    evaluator = RobustnessEvaluator(
        model if isinstance(model, Path) else dict(model),
        {"pictures": chosen},
        data.object_parts,
        groups=data.groups,
    )
    if evaluator.fingerprint != settings.get("model"):
        raise UserError(
            f"{evaluator.model_name} has other weights than the model that {folder} attacked: "
            "evaluate it under another NAME=, or put the old weights back"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    run = model if isinstance(model, Path) and (model / MANIFEST).is_file() else None
    title = f"PGD{STEPS}" if threat is None else f"{threat}: {type(chosen).__name__}"
    title = threat_title(title, str(chosen.norm or ""), chosen.eps)
    annotations = pinpp or manifest.data_arguments.get("pinpp")
    return Evaluated(
        folder,
        data,
        evaluator.to(device).eval(),
        chosen,
        title,
        settings,
        run,
        annotations and Path(annotations),
    )


def _images(
    told: Mapping[str, Any], imagenet: Path | None, pinpp: Path | None, pinpp_val: Path | None
) -> RobustnessDataModule:
    known = signature(RobustnessDataModule).parameters
    arguments = {name: value for name, value in told.items() if name in known}
    places = {"imagenet": imagenet, "pinpp": pinpp, "part_annotations": pinpp_val}
    arguments |= {name: place for name, place in places.items() if place is not None}
    # where another run decided when to stop, it may be gone; it changes no image
    return RobustnessDataModule(**arguments | {"stop_against": None})


def _place(told: Path, runs: Path) -> Path:
    """Where a model is: as the run was told, else below the runs; a name of timm stays."""
    return told if told.exists() or not (runs / told.name).exists() else runs / told.name


def _short_pgd(settings: Mapping[str, Any]) -> PGD:
    """PGD at the radius of the first l_inf threat that was recorded, else at 4/255."""
    recorded = (settings.get("threats") or {}).values()
    radii = (one.get("eps") for one in recorded if one.get("norm") == "linf")
    eps = float(next(filter(None, radii), EPS))
    return PGD(PixelDistance(eps), STEPS, PixelDistance(eps / 4))


def _configured(specifications: Mapping[str, Any], name: str, folder: Path) -> Threat:
    if name not in specifications:
        raise UserError(
            f"{folder} knows no threat {name}, only {', '.join(specifications)}: choose THREAT="
        )
    parser = ArgumentParser()
    parser.add_argument("--threat", type=Threat)
    parsed = parser.parse_object({"threat": specifications[name]})
    threat: Threat = parser.instantiate_classes(parsed).threat
    if threat.norm is None:
        raise UserError(f"{name} changes no image: choose an attack as THREAT=")
    return threat
