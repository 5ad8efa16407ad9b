"""Builds the report: one HTML file that needs nothing but itself, and its tables as files."""

from collections.abc import Sequence
from datetime import datetime
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
from pipeline.report.answer import statements
from pipeline.report.cells import Table
from pipeline.report.certified_table import certified_table
from pipeline.report.curves import draw_curves
from pipeline.report.exports import download_links, write_tables
from pipeline.report.few_shot_tables import few_shot_differences, few_shot_table
from pipeline.report.not_run import fold, other_entries, stage_entries
from pipeline.report.part_maps import find_model
from pipeline.report.pictures import Samples, example_gallery, mask_gallery, read_samples
from pipeline.report.reading.comparisons import Comparison, find_comparison
from pipeline.report.reading.curves import read_curves
from pipeline.report.reading.evaluations import Evaluation, alignment_plots
from pipeline.report.reading.runs import Runs, data_arguments, read_runs
from pipeline.report.scored_segmenters import scored_table
from pipeline.report.segmenter import category_results, object_table, segmenter_table
from pipeline.report.strip import TITLES, Strip, draw_strip
from pipeline.report.strip_images import strip_images


def _curves(folders: Sequence[Path]) -> list[dict[str, str]]:
    drawn = []
    for run in folders:
        # an AP of -1 throughout had nothing to measure
        curves = {tag: c for tag, c in read_curves(run).items() if (c.values != -1).any()}
        if curves:
            drawn.append({"name": run.name, "uri": draw_curves(curves)})
    return drawn


def _cost(one: Evaluation, runs: Path) -> tuple[int, int] | None:
    """Parameters and FLOPs of a run's model at the size it was evaluated at; None if unknown."""
    size = data_arguments(one.folder).get("image_size")
    try:
        run = find_model(one.model, runs, one.name)
    except MissingInputError:
        return None
    return inference_cost(run, size) if size and (run / "export").is_dir() else None


def _tables(runs: Runs) -> dict[str, Any]:
    """Every table of the page by the name that the template uses; some are lists."""
    evaluations = runs.evaluations
    costs = {one.name: _cost(one, runs.folder) for one in evaluations}
    return {
        "results": robust.result_table(evaluations),
        "attacks": robust.broken_table(evaluations),
        "parts": robust.parts_table(evaluations),
        "certified": certified_table(evaluations),
        "further": robust.further_tables(evaluations, costs),
        "corruptions": general.corruption_table(evaluations),
        "corruptions_3d": general.corruption_3d_table(evaluations),
        "severities": general.severity_tables(evaluations),
        "shifts": general.shift_table(evaluations),
        "experiments": general.experiment_table(evaluations),
        "bias": general.bias_table(evaluations),
        "subsets": general.subset_tables(evaluations),
        "humans": general.human_table(evaluations, runs.alignment),
        "detection": general.detection_table(runs.detectors),
        "few_shot": few_shot_table(runs.few_shot),
        "few_shot_differences": few_shot_differences(runs.few_shot_differences),
        "segmenter": segmenter_table(runs.segmenter_metrics, runs.measured_on_val),
        "objects": object_table(runs.all_segmenter_metrics),
        "scored": scored_table(runs.scored_segmenters),
        "categories": category_results(runs.segmenter),
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


def _headline(results: Table | None, comparison: Comparison | None) -> Table | None:
    if results is None:
        return None
    if comparison is None:
        return robust.headline_table(results)
    details = {comparison.baseline.name: "baseline, without parts"} if comparison.baseline else {}
    if comparison.model.part_loss_weight:
        details[comparison.model.name] = "trained with parts"
    threat = comparison.threat
    return robust.headline_table(results, threat.title if threat else "", details)


def _strip(
    train: Samples,
    runs: Runs,
    comparison: Comparison | None,
    folders: tuple[Path | None, Path | None],
    score_threshold: float,
) -> Strip:
    """The pictures that the page opens with; `folders` are those of images and val parts."""
    imagenet, annotations = folders
    vocabulary = train.vocabulary
    if vocabulary is None or imagenet is None:
        return Strip((), "")
    val = imagenet / "val"
    images = strip_images(train.images, vocabulary, runs, val, annotations, score_threshold)
    evaluation = comparison.model.evaluation if comparison else None
    return draw_strip(images, vocabulary, runs.folder, evaluation)


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
    pinpp_val: Path | None = None,
    score_threshold: float | None = None,
) -> Path:
    """Writes the report of a runs folder; what has not run is said in the page.

    Beside the page, `tables/` holds each table as CSV, Markdown and LaTeX; the page embeds them
    for download as well.

    Args:
        runs: Folder that holds the stages' run folders.
        out: HTML file to write, default `runs/report/index.html`.
        models: Names of evaluated models to show, or their folders; default all.
        imagenet: Folder with `train/`, for the gallery, and `val/`.
        pinpp: Folder with `json/`, for the gallery.
        pinpp_val: Folder with `json/` of val images, for the pictures that the page opens with;
            default what an evaluation or the segmenter was given. Without it they are train images.
        score_threshold: Pseudo parts below this score are not painted in the gallery; default
            the least score that stage 3 learnt from.

    Returns:
        The written file.

    Raises:
        MissingInputError: If the runs folder is missing.
        UserError: If a file of a run is damaged.
    """
    content = read_runs(runs, [Path(model).name for model in models])
    if score_threshold is None:
        score_threshold = content.score_threshold
    samples = read_samples(
        [run / "vocabulary.json" for run in (content.pseudo_labels, content.segmenter)],
        content.pseudo_labels,
        imagenet,
        pinpp,
        score_threshold,
        int(content.segmenter_data.get("seed") or 0),
    )
    evaluations = content.evaluations
    comparison = find_comparison(runs, evaluations)
    tables = _tables(content)
    charts = _charts(tables, evaluations)
    shown, folded = fold(tables)
    there = {
        "broken": shown["attacks"] or not shown["results"],
        "steps": charts["steps"] or not shown["results"],
        "labels": content.labels,
        "gallery": not samples.note,
        "examples": (examples := example_gallery(runs, evaluations)),
        "curves": (curves := _curves([*content.stages, *(one.folder for one in evaluations)])),
    }
    page = render_page(
        "report.html.j2",
        "pipeline.report",
        runs=str(runs),
        written=datetime.now().astimezone(),
        asked=content.not_evaluated if models else [],
        statements=statements(content, comparison),
        strip=_strip(samples, content, comparison, (imagenet, pinpp_val), score_threshold),
        strip_titles=TITLES,
        headline=_headline(shown["results"], comparison),
        not_run=[
            *stage_entries([*content.missing, *content.not_evaluated]),
            *folded,
            *other_entries([name for name, found in there.items() if not found], samples.note),
        ],
        stages=content.facts,
        warnings=[f"{one.name}: {line}" for one in evaluations for line in one.warnings],
        tables=shown,
        charts=charts,
        downloads=download_links,
        human_plots={title: svg_uri(svg) for title, svg in alignment_plots(runs).items()},
        ap_on_val=content.measured_on_val,
        labels=content.labels,
        gallery=mask_gallery(samples),
        score_threshold=score_threshold,
        examples=examples,
        curves=curves,
    )
    out = out or runs / "report" / "index.html"
    write_tables(_flat(tables), out.parent / "tables")
    write_text(out, page)
    return out
