"""Builds the report: one HTML file that needs nothing but itself, and its tables as files."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.files.atomic_files import write_text
from datamodules.files.errors import MissingInputError
from pipeline.drawing.charts import svg_uri
from pipeline.drawing.pages import render_page
from pipeline.export.inference_cost import inference_cost
from pipeline.report import generalisation_tables as general
from pipeline.report import result_charts
from pipeline.report import robustness_tables as robust
from pipeline.report.cells import Table
from pipeline.report.curves import draw_curves, read_curves
from pipeline.report.evaluations import (
    Evaluation,
    alignment_plots,
    evaluation_folders,
    read_alignment,
    read_evaluation,
)
from pipeline.report.exports import download_links, write_tables
from pipeline.report.facts import StageFacts, label_facts, stage_facts
from pipeline.report.pictures import example_gallery, mask_gallery
from pipeline.report.segmenter import category_results, segmenter_rows, segmenter_table
from pipeline.runs.error_exit import error_exit
from pipeline.runs.manifest import Manifest

SEGMENTER, LABELS = "stage1_segmenter", "stage2_pseudolabels"
COMMANDS = {SEGMENTER: "make stage1-segmenter", LABELS: "make stage2-pseudolabels"}


def _find_stages(runs: Path, models: Sequence[str]) -> list[Path]:
    """Run folders in the order of the flow; of stage 3 the named models, or all of them."""
    found = [path for path in sorted(runs.glob("stage[123]_*")) if path.is_dir()]
    return [
        path
        for path in found
        if not models or not path.name.startswith("stage3_") or path.name in models
    ]


def _evaluated(runs: Path, models: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Evaluated models' folders in the order asked for, and what is missing in words."""
    folders = {path.name: path for path in evaluation_folders(runs)}
    if not models:
        missing = [] if folders else ["no model evaluated: not run, make evaluate"]
        return list(folders.values()), missing
    wanted = dict.fromkeys(models)
    missing = [
        f"{model}: not run, make evaluate MODEL={model}" for model in wanted if model not in folders
    ]
    return [folders[model] for model in wanted if model in folders], missing


def _curves(stages: Sequence[Path]) -> list[dict[str, str]]:
    drawn = []
    for run in stages:
        # an AP of -1 throughout had nothing to measure
        curves = {tag: c for tag, c in read_curves(run).items() if (c.values != -1).any()}
        if curves:
            drawn.append({"name": run.name, "uri": draw_curves(curves)})
    return drawn


def _data_arguments(run: Path) -> Mapping[str, Any]:
    """Arguments of the data that a stage was run with; empty where unknown."""
    manifest = Manifest.find(run)
    return manifest.data_arguments if manifest else {}


def _cost(run: Path, evaluation: Path) -> tuple[int, int] | None:
    """Parameters and FLOPs of a run's model at the size it was evaluated at; None if unknown."""
    size = _data_arguments(evaluation).get("image_size")
    return inference_cost(run, size) if size and (run / "export").is_dir() else None


def _used_threshold(runs: Path) -> float:
    """Least score of the pseudo parts that stage 3 learnt from."""
    used = (_data_arguments(run).get("score_threshold") for run in sorted(runs.glob("stage3_*")))
    return float(next((value for value in used if value is not None), 0.0))


def _tables(
    runs: Path, evaluations: list[Evaluation], segmenter: dict[str, float]
) -> dict[str, Any]:
    """Every table of the page by the name that the template uses; some are lists."""
    costs = {one.name: _cost(runs / one.name, one.folder) for one in evaluations}
    on_val = bool(_data_arguments(runs / SEGMENTER).get("pinpp_val"))
    return {
        "results": robust.result_table(evaluations),
        "attacks": robust.broken_table(evaluations),
        "parts": robust.parts_table(evaluations),
        "further": robust.further_tables(evaluations, costs),
        "corruptions": general.corruption_table(evaluations),
        "severities": general.severity_tables(evaluations),
        "shifts": general.shift_table(evaluations),
        "experiments": general.experiment_table(evaluations),
        "bias": general.bias_table(evaluations),
        "subsets": general.subset_tables(evaluations),
        "humans": general.human_table(evaluations, read_alignment(runs, evaluations)),
        "detection": general.detection_table(runs),
        "segmenter": segmenter_table(segmenter, on_val),
        "categories": category_results(runs / SEGMENTER),
    }


def _charts(tables: dict[str, Any], evaluations: Sequence[Evaluation]) -> dict[str, str]:
    attacked = [t.title for one in evaluations for t in one.threats if t.norm]
    column = robust.LINF if robust.LINF in attacked or not attacked else attacked[-1]
    return {
        "radius": result_charts.draw_radius(evaluations),
        "steps": result_charts.draw_steps(evaluations),
        "attacks": result_charts.draw_attacks(tables["attacks"]),
        "corruptions": result_charts.draw_corruptions(tables["corruptions"]),
        "trade_off": result_charts.draw_trade_off(tables["results"], column),
    }


def _flat(tables: dict[str, Any]) -> list[Table]:
    lists = [value if isinstance(value, list) else [value] for value in tables.values()]
    return [table for group in lists for table in group if table is not None]


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

    Beside the page, `tables/` holds each table as CSV, Markdown and LaTeX; the page embeds them
    for download as well.

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
        MissingInputError: If the runs folder is missing.
        UserError: If a file of a run is damaged.
    """
    if not runs.is_dir():
        raise MissingInputError(
            f"{runs} is not a folder: run make demo, or set RUNS to the folder of your runs"
        )
    stages = _find_stages(runs, models)
    folders, not_evaluated = _evaluated(runs, models)
    evaluations = [read_evaluation(folder) for folder in folders]
    facts = [stage_facts(run, run.relative_to(runs).as_posix()) for run in [*stages, *folders]]
    names = [run.name for run in stages]
    missing = [f"{name}: not run, {cmd}" for name, cmd in COMMANDS.items() if name not in names]
    if not any(name.startswith("stage3_") for name in names):
        missing.append("stage3: not run, make stage3-mpm")
    if score_threshold is None:
        score_threshold = _used_threshold(runs)
    stage1 = _data_arguments(runs / SEGMENTER)
    vocabularies = [runs / name / "vocabulary.json" for name in (LABELS, SEGMENTER)]
    seed = int(stage1.get("seed") or 0)
    gallery, gallery_note = mask_gallery(
        vocabularies, runs / LABELS, imagenet, pinpp, score_threshold, seed
    )
    metrics = _metrics(facts)
    tables = _tables(runs, evaluations, metrics)
    page = render_page(
        "report.html.j2",
        "pipeline.report",
        runs=str(runs),
        stages=facts,
        missing=missing,
        not_evaluated=not_evaluated,
        warnings=[f"{one.name}: {line}" for one in evaluations for line in one.warnings],
        tables=tables,
        charts=_charts(tables, evaluations),
        downloads=download_links,
        human_plots={title: svg_uri(svg) for title, svg in alignment_plots(runs).items()},
        ap=segmenter_rows(metrics),
        ap_on_val=bool(stage1.get("pinpp_val")),
        labels=label_facts(runs / LABELS),
        gallery=gallery,
        gallery_note=gallery_note,
        score_threshold=score_threshold,
        examples=example_gallery(runs, evaluations),
        curves=_curves([*stages, *folders]),
    )
    out = out or runs / "report" / "index.html"
    write_tables(_flat(tables), out.parent / "tables")
    write_text(out, page)
    return out


def _metrics(facts: Sequence[StageFacts]) -> dict[str, float]:
    return next((one.metrics for one in facts if one.name == SEGMENTER), {})


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of `python -m pipeline.report`."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.report", description="Writes the HTML report of a runs folder."
    )
    parser.add_argument("--runs", type=Path, required=True, help="folder of the run folders")
    parser.add_argument(
        "--model",
        nargs="*",
        action="extend",
        default=[],
        help="models to show, repeatable; default: every folder below RUNS/evaluate",
    )
    parser.add_argument("--imagenet", type=Path, help="folder with train/, for the gallery")
    parser.add_argument("--pinpp", type=Path, help="folder with json/, for the gallery")
    parser.add_argument("--out", type=Path, help="default RUNS/report/index.html")
    parser.add_argument("--score-threshold", type=float, help="default: as stage 3 used")
    given = parser.parse_args(arguments)
    with error_exit():
        path = build_report(
            given.runs,
            given.out,
            models=[Path(model).name for model in given.model],
            imagenet=given.imagenet,
            pinpp=given.pinpp,
            score_threshold=given.score_threshold,
        )
    print(path)
