"""The study as a Markdown page: tables, the published rows beside, the paper's ordering."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from datamodules.files.atomic_files import write_text
from pipeline.drawing.markdown_table import markdown_table
from pipeline.published import SCALE_NOTE
from pipeline.study.results import THREATS, Result
from pipeline.study.rows import CLAIMS, FAST, Row
from pipeline.study.summary import POWER, Estimate, accuracy, difference, margin, verdict

NOTES = "<!-- What follows is kept when this page is written anew. -->"
NOT_RUN = "not run"
MARGIN = 1.0  # percentage points that a fast training may lose


def write_document(
    path: Path, name: str, command: str, results: Sequence[Result], rows: Sequence[Row]
) -> None:
    """Writes the page; what stands below its last marker is kept.

    Args:
        path: Markdown file; the plot has the same name with `.png`.
        name: of the data set.
        command: that made the study.
        results: of the study.
        rows: rows to show.
    """
    kept = ""
    if path.is_file():
        kept = path.read_text().partition(NOTES)[2]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = _page(path, name, command, results, rows)
    write_text(path, f"{text}\n{NOTES}{kept or chr(10)}")


def _page(
    path: Path, name: str, command: str, results: Sequence[Result], rows: Sequence[Row]
) -> str:
    complete = [result for result in results if result.outcomes]
    threats = [threat for threat in THREATS if any(threat in r.outcomes for r in complete)]
    sections = [
        f"# Small-scale study on {name}",
        f"Made by `{command}`; {len(complete)} of {len(results)} runs are complete.",
        f"The models of Tables 2, 5, 6 and S6 of PartImageNet++ {_scale(results)}, trained with "
        f"l_inf 4/255. All rows share the segmenter, the recipe and the evaluated images. "
        f"{_design(complete, threats)} Accuracies in percent ± half the 95 % interval, for other "
        "trainings and other images (clusters in two ways, `pipeline/study/summary.py`; the "
        "segmenter does not vary in it). The weights are those of the last epoch: none is chosen "
        f"by its accuracy. The last columns ({SCALE_NOTE}) are AutoAttack's, so only orders and "
        "signs compare.",
        f"![Accuracy of every row]({path.stem}.png)",
        _accuracy_table(results, rows, threats),
        "## Difference to vanilla AT\n\nPercentage points, paired by training and image. Below, "
        f"the true difference that {100 * POWER:.0f} % of studies of this size would find: their "
        "interval would leave 0 out.",
        _difference_table(results, rows, threats),
        "## Does the paper's ordering hold here?\n\nPaired differences in percentage points with "
        "their 95 % intervals; undecided where 0 is inside. No correction for the number of "
        "comparisons: of twenty true zeros one would be called a difference.",
        _ordering_table(results, rows, threats),
    ]
    if fast := _fast_table(results, rows, threats):
        sections.append(
            "## At a part of the cost\n\nRows of `fast.yaml` and `one_step.yaml` of "
            "`configs/stage3_mpm/` less the same rows "
            f"in full, paired percentage points, and whether more than {MARGIN:g} is lost: "
            f"undecided where {-MARGIN:g} is inside the interval. FLOPs: "
            "`benchmarks/fast_recipe.py`."
        )
        sections.append(fast)
    return "\n\n".join(sections) + "\n"


def _scale(results: Sequence[Result]) -> str:
    parameters = {r.parameters for r in results if r.parameters is not None}
    return f"with networks of {min(parameters) / 1e6:.1f} M parameters" if parameters else ""


def _design(complete: Sequence[Result], threats: Sequence[str]) -> str:
    """How many images and trainings there are, in words."""
    folds = {result.fold for result in complete} - {None}
    seeds = {result.seed for result in complete}
    images = {
        threat: len({key for r in complete for key in r.outcomes.get(threat, ())})
        for threat in threats
    }
    measured = ", ".join(f"{THREATS[t]} on {images[t]:,} images" for t in threats) or "nothing yet"
    if not folds:
        return f"Up to {len(seeds)} trainings of a row; measured: {measured}."
    return (
        f"Cross-validation: all images without part annotations are split into {len(folds)} folds, "
        f"each tested on by networks that were trained on the rest and on the annotated images, "
        f"{f'{len(seeds)} times with other seeds' if len(seeds) > 1 else 'once'}; measured: "
        f"{measured}."
    )


def _accuracy_table(results: Sequence[Result], rows: Sequence[Row], threats: Sequence[str]) -> str:
    head = ["row", "runs", *(THREATS[t] for t in threats), "parameters", "MFLOPs"]
    head += ["published: clean", "4/255", "8/255", "source"]
    lines = []
    for row in rows:
        runs = [r for r in results if r.row == row.name and r.outcomes]
        parameters = {r.parameters for r in runs if r.parameters is not None}
        flops = {r.flops for r in runs if r.flops is not None}
        published: tuple[float | None, ...] = (None, None, None)
        if row.published is not None:
            published = (row.published.clean, row.published.linf, row.published.linf_x2)
        lines.append(
            [
                row.title,
                str(len(runs)),
                *(
                    _cell(accuracy(results, row.name, t), bool(runs) or not _under(row, t))
                    for t in threats
                ),
                f"{max(parameters):,}" if parameters else "",
                f"{max(flops) / 1e6:,.1f}" if flops else "",
                *("" if value is None else f"{value:.1f}" for value in published),
                "" if row.published is None else row.published.source.rpartition(", ")[2],
            ]
        )
    return markdown_table(head, lines)


def _difference_table(
    results: Sequence[Result], rows: Sequence[Row], threats: Sequence[str]
) -> str:
    lines = []
    found: list[tuple[str, Estimate]] = []
    for row in rows:
        if row.name == "vanilla":
            continue
        ran = all(
            any(r.row == name and r.outcomes for r in results) for name in (row.name, "vanilla")
        )
        cells = [difference(results, row.name, "vanilla", t) for t in threats]
        runs = max((cell.runs for cell in cells if cell), default=0)
        shown = [
            _cell(cell, ran or not _under(row, t), "+")
            for cell, t in zip(cells, threats, strict=True)
        ]
        lines.append([row.title, str(runs), *shown])
        found += [(threat, cell) for cell, threat in zip(cells, threats, strict=True) if cell]
    power = []
    for threat in threats:
        errors = [cell.detectable for name, cell in found if name == threat and cell.runs > 1]
        power.append(f"{statistics.median(errors):.1f}" if errors else "")
    lines.append(["found with a power of 80 %, median of the rows", "", *power])
    return markdown_table(["row", "runs", *(THREATS[t] for t in threats)], lines)


def _ordering_table(results: Sequence[Result], rows: Sequence[Row], threats: Sequence[str]) -> str:
    by_name = {row.name: row for row in rows}
    lines = []
    for claim in CLAIMS:
        if claim.better not in by_name or claim.worse not in by_name:
            continue
        pair = by_name[claim.better], by_name[claim.worse]
        sign = ">" if claim.strict else "≥"
        said = f"{pair[0].title} {sign} {pair[1].title} ({claim.source})"
        verdicts = [
            verdict(claim, results, t) if all(_under(row, t) for row in pair) else ""
            for t in threats
        ]
        lines.append([said, *verdicts])
    return markdown_table(["the paper", *(THREATS[t] for t in threats)], lines)


def _fast_table(results: Sequence[Result], rows: Sequence[Row], threats: Sequence[str]) -> str:
    """Empty where no pair is shown."""
    by_name = {row.name: row for row in rows}
    pairs = [names for names in FAST if all(name in by_name for name in names)]
    lines = [
        [
            f"{by_name[fast].title} - {by_name[full].title}",
            *(margin(difference(results, fast, full, t), MARGIN) for t in threats),
        ]
        for fast, full in pairs
    ]
    return markdown_table(["rows", *(THREATS[t] for t in threats)], lines) if pairs else ""


def _under(row: Row, threat: str) -> bool:
    """Whether a threat is meant to measure a row."""
    return row.autoattack or threat != "autoattack"


def _cell(mean: Estimate | None, empty: bool, sign: str = "") -> str:
    """A mean and its interval; where there is none, nothing or that it was not run."""
    if mean is None:
        return "" if empty else NOT_RUN
    value = f"{mean.mean:{sign}.1f}"
    return value if math.isnan(mean.half) else f"{value} ± {mean.half:.1f}"
