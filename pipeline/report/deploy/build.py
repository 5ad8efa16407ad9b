"""Builds the page: all evaluated models side by side, what they cost, and who should choose which.

Its table lies beside it as CSV.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import torch
from torch import nn

from datamodules.files.atomic_files import write_text
from datamodules.files.errors import MissingInputError, UserError
from modules.weights.classifier_folder import image_format, load_classifier
from pipeline.drawing.pages import render_page
from pipeline.export.inference_cost import network_cost
from pipeline.report.cells import Column, Table
from pipeline.report.deploy.advice import lead_sentences, leads, model_sentences, opening
from pipeline.report.deploy.candidates import (
    ATTACK,
    CORRUPTED,
    COSTS,
    GFLOPS,
    MILLISECONDS,
    PARAMETERS,
    SHIFTED,
    Candidate,
    Cost,
    Field,
    titles_of,
)
from pipeline.report.deploy.drawing import draw_costs
from pipeline.report.deploy.front import dominators
from pipeline.report.deploy.latency import check_rounds, device_name, measure_latency
from pipeline.report.exports import download_links, to_csv
from pipeline.report.part_maps import find_model
from pipeline.report.reading.evaluations import Evaluation
from pipeline.report.reading.runs import data_arguments, read_runs
from pipeline.report.robustness_tables import CLEAN
from pipeline.runs.stages import GENERALISATION

DIGITS = {PARAMETERS: 2, GFLOPS: 2, MILLISECONDS: 2}
COMMANDS = {
    CLEAN: "make evaluate MODEL={}",
    ATTACK: "make evaluate MODEL={}",
    CORRUPTED: "make generalisation MODEL={}",
    SHIFTED: "make generalisation MODEL={}, with folders of shifted sets",
    **dict.fromkeys(COSTS, "make deploy, where the model lies"),
}


def deploy(
    runs: Path,
    out: Path | None = None,
    *,
    models: Sequence[str] = (),
    device: str = "auto",
    batch_size: int = 1,
    rounds: int = 100,
    seed: int = 0,
) -> Path:
    """Writes the page that says which evaluated model to deploy, and prints its sentences.

    Args:
        runs: folder of all runs.
        out: HTML file to write, default `runs/deploy/index.html`; `deploy.csv` lies beside it.
        models: names of evaluated models, or their folders; default all.
        device: where milliseconds are measured: `cpu`, `cuda`, or `auto` for a GPU where there is
            one.
        batch_size: images in a forward pass.
        rounds: timed passes of each model, at least 10; the models take turns.
        seed: of the images and of the turns.

    Returns:
        The written file.

    Raises:
        MissingInputError: if the runs folder is missing.
        UserError: if no model was evaluated, a file of a run is damaged, or a number is out of
            range.
    """
    content = read_runs(runs, [Path(model).name for model in models])
    if models and content.not_evaluated:
        raise UserError("; ".join(content.not_evaluated))
    if not content.evaluations:
        raise UserError(f"{runs} holds no evaluated model: run make evaluate first")
    place = _device(device)
    check_rounds(batch_size, rounds)
    candidates = _candidates(runs, content.evaluations, place, batch_size, rounds, seed)
    field = Field(candidates)
    criteria = field.criteria
    dominated = dominators(list(field.candidates), criteria, field.judge)
    titles = titles_of(field, criteria)
    found = leads(field, criteria, dominated)
    columns = tuple(Column(titles[kind], DIGITS.get(kind, 1)) for kind in criteria)
    rows = tuple(
        field.row(name, f"worse than {', '.join(better)}" if better else "Pareto front", criteria)
        for name, better in dominated.items()
    )
    machine = f"{device_name(place)}, batches of {batch_size}, float32, {rounds} rounds in turn"
    table = Table("deploy", "All models", _caption(field, machine), columns, rows)
    lines = [
        opening(dominated),
        *lead_sentences(field, found, {kind: DIGITS.get(kind, 1) for kind in criteria}),
    ]
    choices = model_sentences(dominated, found, field.attack)
    page = render_page(
        "deploy/deploy.html.j2",
        "pipeline.report",
        runs=str(runs),
        written=datetime.now().astimezone(),
        opening=lines[0],
        leads=lines[1:],
        choices=choices,
        table=table,
        plot=draw_costs(field, dominated),
        attack=field.attack,
        missing=_missing(field),
        warnings=[f"{one.name}: {w}" for one in content.evaluations for w in one.warnings],
        downloads=download_links,
    )
    out = out or runs / "deploy" / "index.html"
    write_text(out.parent / "deploy.csv", to_csv(table))
    write_text(out, page)
    print("\n".join([*lines, *choices]))
    return out


def _candidates(
    runs: Path,
    evaluations: Sequence[Evaluation],
    device: torch.device,
    batch_size: int,
    rounds: int,
    seed: int,
) -> list[Candidate]:
    """The models, those that can be opened timed side by side."""
    networks: dict[str, tuple[nn.Module, int]] = {}
    costs: dict[str, tuple[int, int]] = {}
    notes = {}
    for one in evaluations:
        try:
            network, size = _open(runs, one)
        except UserError as error:
            notes[one.name] = f"not measured: {error}"
            continue
        networks[one.name] = network, size
        costs[one.name] = network_cost(network, size)
    structures = {name: _structure(network) for name, (network, _) in networks.items()}
    times = measure_latency(networks, device, batch_size, rounds, seed=seed)
    return [
        Candidate(
            one,
            Cost(*costs[one.name], networks[one.name][1], structures[one.name], times[one.name])
            if one.name in networks
            else None,
            notes.get(one.name, ""),
        )
        for one in evaluations
    ]


def _open(runs: Path, one: Evaluation) -> tuple[nn.Module, int]:
    """The evaluated network and the side of its images.

    Raises:
        MissingInputError: if the model is not here.
        UserError: if its weights are wrong, or the size of its images is not known.
    """
    network = load_classifier(find_model(one.model, runs, one.name))
    for folder in (one.folder, one.folder / GENERALISATION.name):
        if size := data_arguments(folder).get("image_size"):
            return network, int(size)
    if (known := image_format(network)) is not None:
        return network, known.size
    raise MissingInputError(f"{one.folder} does not say the size of its images")


def _structure(network: nn.Module) -> str:
    layers = [f"{name} {module.extra_repr()}" for name, module in network.named_modules()]
    kinds = [type(module).__name__ for module in network.modules()]
    # a normalisation differs in its numbers alone
    return "\n".join(
        kind if kind == "Normalise" else f"{kind} {layer}"
        for kind, layer in zip(kinds, layers, strict=True)
    )


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"device={name} must be auto, cpu or cuda")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise UserError("device=cuda, but PyTorch finds no GPU here: give device=cpu")
    return torch.device("cuda" if name != "cpu" and there else "cpu")


def _caption(field: Field, machine: str) -> str:
    shifts = f" Shifts: mean over {', '.join(field.shifts)}." if field.shifts else ""
    return (
        "Accuracy in percent with its 95 % interval; corruptions: mean of the 15 of ImageNet-C in "
        f"5 severities.{shifts} GFLOPs of one image, a multiply-add counts as one. ms: median of a "
        f"batch with the 95 % interval of order statistics, measured side by side on {machine}."
    )


def _missing(field: Field) -> list[tuple[str, str, str]]:
    """What has no figure: model and column, reason, command."""
    kinds = (CLEAN, ATTACK, CORRUPTED, SHIFTED, MILLISECONDS)
    titles = {MILLISECONDS: "parameters, GFLOPs and ms", ATTACK: field.attack or "an attack"}
    return [
        (f"{name}, {titles.get(kind, kind)}", cell.note, COMMANDS[kind].format(one.told))
        for name, one in field.candidates.items()
        for kind in kinds
        if (cell := field.cell(name, kind)).value is None
    ]
