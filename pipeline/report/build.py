"""Builds the report: one HTML file that needs nothing but itself."""

import argparse
import base64
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from datamodules.part_vocabulary import PartVocabulary
from pipeline import published
from pipeline.report.curves import draw_curves, read_curves
from pipeline.report.examples import read_examples
from pipeline.report.figures import legend_of, show_parts
from pipeline.report.palette import part_colours
from pipeline.report.samples import pick_samples
from pipeline.report.segmenter import COLUMNS, category_tables, segmenter_rows
from pipeline.report.tables import label_facts, read_json, result_table, stage_facts
from pipeline.stage_outputs import read_manifest

SEGMENTER, LABELS = "stage1_segmenter", "stage2_pseudolabels"
COMMANDS = {SEGMENTER: "make stage1-segmenter", LABELS: "make stage2-pseudolabels"}
GALLERY_SIDE = 288  # pixels
EXAMPLE_SIDE = 160  # pixels


def data_uri(image: np.ndarray, kind: str = "jpeg") -> str:
    """Encodes pixels (uint8 (H, W, 3)) as a `data:` address, `kind` being jpeg or png."""
    buffer = BytesIO()
    options: dict[str, Any] = {"quality": 88, "subsampling": 0} if kind == "jpeg" else {}
    Image.fromarray(image).save(buffer, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _find_stages(runs: Path, models: Sequence[str]) -> list[Path]:
    """Run folders in the order of the flow; of stage 3 the named models, or all of them."""
    found = [path for path in sorted(runs.glob("stage[123]_*")) if path.is_dir()]
    return [
        path
        for path in found
        if not models or not path.name.startswith("stage3_") or path.name in models
    ]


def _evaluations(runs: Path, models: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Evaluated models' folders, and what is missing in words."""
    folders = sorted(path.parent for path in (runs / "evaluate").glob("*/summary.json"))
    if not models:
        missing = [] if folders else ["no model evaluated: not run, make evaluate"]
        return folders, missing
    missing = [
        f"{model}: not run, make evaluate MODEL={model}"
        for model in models
        if not (runs / "evaluate" / model / "summary.json").is_file()
    ]
    return [folder for folder in folders if folder.name in models], missing


def _curves(stages: Sequence[Path]) -> list[dict[str, str]]:
    drawn = []
    for run in stages:
        # an AP of -1 throughout had nothing to measure
        curves = {tag: c for tag, c in read_curves(run).items() if (c.values != -1).any()}
        if curves:
            svg = base64.b64encode(draw_curves(curves)).decode()
            drawn.append({"name": run.name, "uri": f"data:image/svg+xml;base64,{svg}"})
    return drawn


def _data_arguments(run: Path) -> dict[str, Any]:
    """Arguments of the data that a stage was run with; empty where unknown."""
    manifest = read_manifest(run) if (run / "manifest.json").is_file() else {}
    data = manifest.get("config", {}).get("data") or {}
    return data.get("init_args") or {}


def _used_threshold(runs: Path) -> float:
    """Least score of the pseudo parts that stage 3 learnt from."""
    used = (_data_arguments(run).get("score_threshold") for run in sorted(runs.glob("stage3_*")))
    return float(next((value for value in used if value is not None), 0.0))


def _gallery(
    runs: Path, imagenet: Path | None, pinpp: Path | None, score_threshold: float
) -> tuple[list[dict[str, Any]], str]:
    """Gallery rows, and a sentence where there is nothing to show."""
    if imagenet is None or pinpp is None:
        return [], "not shown: give --imagenet and --pinpp"
    try:
        saved = [runs / name / "vocabulary.json" for name in (LABELS, SEGMENTER)]
        existing = [path for path in saved if path.is_file()]
        if existing:
            vocabulary = PartVocabulary.load(existing[0])
        else:
            vocabulary = PartVocabulary.from_pinpp(pinpp, imagenet)
        samples = pick_samples(
            imagenet,
            pinpp,
            vocabulary,
            runs / LABELS,
            score_threshold=score_threshold,
            seed=int(_data_arguments(runs / SEGMENTER).get("seed") or 0),
        )
    except (FileNotFoundError, ValueError) as error:
        return [], f"not shown: {error}"
    colours = part_colours(vocabulary)
    rows = []
    for sample in samples:
        masks = (None, sample.human, sample.pseudo)
        pictures = [
            data_uri(show_parts(sample.image, mask, colours, GALLERY_SIDE))
            if position == 0 or mask is not None
            else None
            for position, mask in enumerate(masks)
        ]
        legend = legend_of(masks, vocabulary, colours)
        rows.append({"key": sample.key, "pictures": pictures, "legend": legend})
    return rows, "" if rows else "not shown: no annotated image"


def _examples(folders: Sequence[Path]) -> list[dict[str, Any]]:
    groups = []
    for folder in folders:
        pairs = [
            {
                "pair": pair,
                "clean": data_uri(show_parts(pair.clean, None, np.zeros((1, 3)), EXAMPLE_SIDE)),
                "adversarial": data_uri(
                    show_parts(pair.adversarial, None, np.zeros((1, 3)), EXAMPLE_SIDE)
                ),
                "difference": data_uri(pair.difference, "png"),
            }
            for pair in read_examples(folder)
        ]
        if pairs:
            groups.append({"model": folder.name, "pairs": pairs})
    return groups


def build_report(
    runs: Path,
    out: Path | None = None,
    *,
    models: Sequence[str] = (),
    imagenet: Path | None = None,
    pinpp: Path | None = None,
    score_threshold: float | None = None,
) -> Path:
    """Writes the report of a runs folder; what has not run is said in the page.

    Args:
        runs: Folder that holds the stages' run folders.
        out: HTML file to write, default `runs/report/index.html`.
        models: Names of evaluated models to show, default all.
        imagenet: Folder with `train/`, for the gallery.
        pinpp: Folder with `json/`, for the gallery.
        score_threshold: Pseudo parts below this score are not painted in the gallery; default
            the least score that stage 3 learnt from.

    Returns:
        The written file.

    Raises:
        FileNotFoundError: If the runs folder is missing.
        ValueError: If a file of a run is damaged.
    """
    if not runs.is_dir():
        raise FileNotFoundError(
            f"{runs} is not a folder: run make demo, or set RUNS to the folder of your runs"
        )
    stages = _find_stages(runs, models)
    evaluated, not_evaluated = _evaluations(runs, models)
    summaries = {folder.name: read_json(folder / "summary.json") or {} for folder in evaluated}
    facts = [stage_facts(run, run.relative_to(runs).as_posix()) for run in [*stages, *evaluated]]
    names = [run.name for run in stages]
    missing = [f"{name}: not run, {cmd}" for name, cmd in COMMANDS.items() if name not in names]
    if not any(name.startswith("stage3_") for name in names):
        missing.append("stage3: not run, make stage3-mpm")
    if score_threshold is None:
        score_threshold = _used_threshold(runs)
    gallery, gallery_note = _gallery(runs, imagenet, pinpp, score_threshold)
    environment = Environment(
        loader=PackageLoader("pipeline.report", "."), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(
        runs=str(runs),
        stages=facts,
        missing=missing,
        not_evaluated=not_evaluated,
        results=result_table(summaries),
        ap=segmenter_rows(next((f.metrics for f in facts if f.name == SEGMENTER), {})),
        ap_columns=list(COLUMNS),
        categories=category_tables(runs / SEGMENTER),
        ap_on_val=bool(_data_arguments(runs / SEGMENTER).get("pinpp_val")),
        labels=label_facts(runs / LABELS),
        gallery=gallery,
        gallery_note=gallery_note,
        score_threshold=score_threshold,
        examples=_examples(evaluated),
        curves=_curves([*stages, *evaluated]),
        published=published,
    )
    out = out or runs / "report" / "index.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of `python -m pipeline.report`."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.report", description="Writes the HTML report of a runs folder."
    )
    parser.add_argument("--runs", type=Path, required=True, help="folder of the run folders")
    parser.add_argument("--model", nargs="*", default=[], help="models to show, default all")
    parser.add_argument("--imagenet", type=Path, help="folder with train/, for the gallery")
    parser.add_argument("--pinpp", type=Path, help="folder with json/, for the gallery")
    parser.add_argument("--out", type=Path, help="default RUNS/report/index.html")
    parser.add_argument("--score-threshold", type=float, help="default: as stage 3 used")
    given = parser.parse_args(arguments)
    try:
        path = build_report(
            given.runs,
            given.out,
            models=[Path(model).name for model in given.model],
            imagenet=given.imagenet,
            pinpp=given.pinpp,
            score_threshold=given.score_threshold,
        )
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(path)
