"""Tables of accuracy without an attack, beside the published rows."""

import math
from collections.abc import Mapping, Sequence

from datamodules.corruptions import CORRUPTIONS, SEVERITIES
from datamodules.evaluation.corruption_errors import mean_corruption_error
from datamodules.evaluation.corruption_sets import CORRUPTIONS_3D
from datamodules.evaluation.human_stimuli import EXPERIMENTS
from pipeline import published
from pipeline.evaluation.summaries import AlignmentRow, BoxPrecision, DetectionResults
from pipeline.report.cells import Cell, Column, Row, Table, published_row
from pipeline.report.reading.evaluations import Evaluation, threat_title

SHIFTS = {"imagenet_a_plus": "A-Plus", "sketch": "Sketch", "stylized": "Stylized", "din": "DIN"}
SOURCE = f"{published.SCALE_NOTE} ({published.PAPER}, "
ON_SUBSET = [threat_title("AutoAttack", "linf", steps / 255) for steps in (4, 8)]
METRICS = {
    "accuracy_difference": "accuracy difference (low is good)",
    "observed_consistency": "observed consistency",
    "error_consistency": "error consistency",
}


def _mean(cells: Sequence[Cell]) -> Cell:
    values = [cell.value for cell in cells if cell.value is not None]
    if len(values) == len(cells):
        return Cell(sum(values) / len(values))
    lacking = next(cell.note for cell in cells if cell.value is None)
    return Cell(note=lacking if not values else "the mean needs all columns")


def corruption_table(evaluations: Sequence[Evaluation]) -> Table:
    """Mean accuracy over the severities of each corruption (Table 3), and the mCE."""
    rows = []
    for one in evaluations:
        cells = [one.measured_set(name) for name in CORRUPTIONS]
        average = _mean(cells)
        shares = {n: row.accuracy for n, row in one.sets.items() if row.accuracy is not None}
        try:
            mce = Cell(100 * mean_corruption_error(shares))
        except ValueError:
            mce = Cell(note=average.note or "the mCE needs all 75 sets")
        rows.append(Row(one.name, one.model, (average, mce, *cells)))
    for row in published.TABLE_3:
        values = [row.accuracies[name] for name in CORRUPTIONS]
        rows.append(published_row(row.method, "", (row.average, None, *values)))
    titles = ["average", "mCE", *(name.replace("_", " ") for name in CORRUPTIONS)]
    caption = (
        "Accuracy in percent, mean over 5 severities, with its 95 % interval. mCE: error divided "
        "by AlexNet's, in percent, low is good, meaningful for the 1,000 classes alone."
    )
    columns = tuple(Column(title) for title in titles)
    source = f"{SOURCE}Table 3)"
    title, command = "Corruptions (Table 3)", "make generalisation"
    return Table("table_3", title, caption, columns, tuple(rows), source, command=command)


def corruption_3d_table(evaluations: Sequence[Evaluation]) -> Table:
    """Mean accuracy over the severities of each corruption of ImageNet-3DCC, and the mean error."""
    rows = []
    for one in evaluations:
        cells = [one.measured_set(name) for name in CORRUPTIONS_3D]
        average = _mean(cells)
        error = average if average.value is None else Cell(100 - average.value)
        rows.append(Row(one.name, one.model, (average, error, *cells)))
    titles = ["average", "mean error", *(name.replace("_", " ") for name in CORRUPTIONS_3D)]
    caption = (
        "Accuracy in percent, mean over 5 severities, with its 95 % interval. The mean error is "
        "plain: no errors of AlexNet are known to this project that would make it an mCE."
    )
    columns = tuple(Column(title) for title in titles)
    title, command = "Corruptions in depth (ImageNet-3DCC)", _with_folder("imagenet_3dcc")
    return Table("corruptions_3d", title, caption, columns, tuple(rows), command=command)


def severity_tables(evaluations: Sequence[Evaluation]) -> list[Table]:
    """All corruptions by severity, one table a model that was measured on any."""
    tables = []
    for one in evaluations:
        rows = one.sets.values()
        if not any(r.table == "corruptions" and r.accuracy is not None for r in rows):
            continue
        lines = [
            Row(
                name.replace("_", " "),
                "",
                tuple(one.measured_set(f"{name}/{severity}") for severity in SEVERITIES),
            )
            for name in CORRUPTIONS
        ]
        columns = tuple(Column(f"severity {severity}") for severity in SEVERITIES)
        title, caption = f"Corruptions by severity: {one.name}", "Accuracy in percent."
        stem = f"severities_{one.name}"
        tables.append(Table(stem, title, caption, columns, tuple(lines), of="corruption"))
    return tables


def shift_table(evaluations: Sequence[Evaluation]) -> Table:
    """Out-of-distribution sets (Table 4), the extras after the four published ones."""
    found = [row for one in evaluations for row in one.sets.values() if row.table == "ood"]
    extras = dict.fromkeys(row.name for row in found if row.name.split("/")[0] not in SHIFTS)
    rows = []
    for one in evaluations:
        cells = [one.measured_set(name) for name in SHIFTS]
        others = [one.measured_set(name) for name in extras]
        rows.append(Row(one.name, one.model, (*cells, _mean(cells), *others)))
    for row in published.TABLE_4:
        values = (row.a_plus, row.sketch, row.stylized, row.din, row.average)
        rows.append(published_row(row.method, "", (*values, *(None for _ in extras))))
    columns = tuple(Column(title) for title in (*SHIFTS.values(), "average", *extras))
    caption = "Accuracy in percent. DIN: mean of 17 experiments, 16 categories."
    source = f"{SOURCE}Table 4)"
    title, command = "Distribution shifts (Table 4)", _with_folder("sketch")
    return Table("table_4", title, caption, columns, tuple(rows), source, command=command)


def experiment_table(evaluations: Sequence[Evaluation]) -> Table:
    """The 17 experiments of Geirhos et al. 2021 one by one."""
    rows = [
        Row(one.name, one.model, tuple(one.measured_set(f"din/{name}") for name in EXPERIMENTS))
        for one in evaluations
    ]
    columns = tuple(Column(name) for name in EXPERIMENTS)
    caption = "Accuracy in percent on each experiment of DIN, 16 categories."
    title, command = "The 17 experiments of DIN", _with_folder("din")
    return Table("din", title, caption, columns, tuple(rows), command=command)


def subset_tables(evaluations: Sequence[Evaluation]) -> list[Table]:
    """PartImageNet's categories with the other logits masked out (Tables S2, S3)."""
    found = [row for one in evaluations for row in one.sets.values() if row.table == "subsets"]
    tables = []
    known = {
        "pin125": ("table_s2", "125 categories of PartImageNet (Table S2)", published.TABLE_S2),
        "pin11": ("table_s3", "11 super-categories of PartImageNet (Table S3)", published.TABLE_S3),
    }
    under_attack = [name for one in evaluations for name in one.subsets]
    for name in dict.fromkeys([*known, *(row.name for row in found), *under_attack]):
        stem, title, other = known.get(name, (f"subset_{name}", f"Subset {name}", ()))
        rows = [Row(one.name, one.model, _on_subset(one, name)) for one in evaluations]
        rows += [published_row(row.method, "", (row.clean, row.linf, row.linf_x2)) for row in other]
        columns = tuple(Column(text) for text in ("clean", "l∞ 4/255", "l∞ 8/255"))
        caption = "Accuracy in percent, answers within the subset alone; attacks: AutoAttack."
        source = f"{SOURCE}trained with l∞ 8/255)"
        # of the subsets with a name of their own, only pin11 is printed in a paper
        command = f"make evaluate SUBSET={name}{'' if name == 'pin11' else ' SUBSETS=FILE'}"
        tables.append(Table(stem, title, caption, columns, tuple(rows), source, command=command))
    return tables


def _on_subset(one: Evaluation, name: str) -> tuple[Cell, ...]:
    clean = one.measured_set(name)
    if name not in one.subsets:
        return (clean, *[Cell(note=f"not run: make evaluate SUBSET={name}")] * len(ON_SUBSET))
    attacked = one.subsets[name]
    if clean.value is None:
        clean = attacked.threat("clean")
    return (clean, *(attacked.threat(title) for title in ON_SUBSET))


def bias_table(evaluations: Sequence[Evaluation]) -> Table:
    """Corruptions, texture and background bias (Sitawarin et al. 2023), and the cue conflict."""
    rows = []
    for one in evaluations:
        texture = [
            name
            for name, row in one.sets.items()
            if row.table == "texture" and name != "cue_conflict"
        ]
        conflict = one.measured_set("cue_conflict")
        cues = one.sets.get("cue_conflict")
        bias = cues.figures.get("shape_bias") if cues else None
        if conflict.value is not None and bias is not None and not math.isnan(bias):
            conflict = Cell(100 * bias)
        elif conflict.value is not None:
            conflict = Cell(note="no answer was the shape or the texture")
        stylised = "not run: give a stylised copy of the val images (ClassFolders, table: texture)"
        cells = (
            _mean([one.measured_set(name) for name in CORRUPTIONS]),
            one.measured_set(texture[0]) if texture else Cell(note=stylised),
            one.measured_set("background/swapped"),
            one.measured_set("background/original"),
            conflict,
        )
        rows.append(Row(one.name, one.model, cells))
    for row in published.PART_MODELS_GENERAL:
        values = (row.corruptions, row.texture, row.background, None, None)
        rows.append(published_row(row.method, "", values))
    titles = ("corruptions", "texture", "background swapped", "same images, own background")
    caption = (
        "Accuracy in percent; shape bias: the shape answers' share of the answers that are either "
        "the shape or the texture of a cue-conflict image."
    )
    columns = tuple(Column(title) for title in (*titles, "shape bias"))
    source = "published, super-categories of PartImageNet (Sitawarin et al., ICLR 2023)"
    title = "Corruptions, texture and background bias"
    command = _with_folder("cue_conflict")
    stem = "general_robustness"
    return Table(stem, title, caption, columns, tuple(rows), source, command=command)


def human_table(evaluations: Sequence[Evaluation], alignment: Mapping[str, AlignmentRow]) -> Table:
    """Alignment with people (Table S4).

    Args:
        evaluations: Evaluated models.
        alignment: Rows of `human_alignment.json` by name.
    """
    reason = "not run: python -m pipeline human_alignment, needs the decisions on the DIN images"
    rows = []
    for name in dict.fromkeys([*(one.name for one in evaluations), *alignment]):
        row = alignment.get(name)
        mean = (row.mean if row else None) or {}
        detail = f"{row.of} experiments" if row else ""
        rows.append(Row(name, detail, tuple(_figure(mean.get(key), reason) for key in METRICS)))
    for other in published.TABLE_S4:
        values = (other.accuracy_difference, other.observed_consistency, other.error_consistency)
        rows.append(published_row(other.method, "17 experiments", values))
    caption = "Means over the experiments of Geirhos et al. 2021; humans: among themselves."
    columns = tuple(Column(title, 3) for title in METRICS.values())
    source = f"{SOURCE}Table S4)"
    title = "Alignment with people (Table S4)"
    more = {"of": "decisions", "command": "make human-alignment HUMANS=FOLDER"}
    return Table("table_s4", title, caption, columns, tuple(rows), source, **more)


def detection_table(detectors: Mapping[str, DetectionResults]) -> Table:
    """Detectors from exported backbones, attacked or not (Table S5), by name of the run folder."""
    rows = []
    kinds = [(attack, key) for attack in ("clean", "A_cls", "A_reg") for key in ("AP", "AP50")]
    for name, results in detectors.items():
        cells = (_precision(results.precisions.get(attack), attack, key) for attack, key in kinds)
        rows.append(Row(name, "", tuple(cells)))
    if not rows:
        reason = Cell(note="not run: make downstream-detection")
        rows.append(Row("no detector", "", tuple(reason for _ in kinds)))
    for row in published.TABLE_S5:
        values = (*row.clean, *row.classification, *row.regression)
        rows.append(published_row(row.initialisation, "Faster R-CNN R50-FPN", values))
    caption = "Box AP and AP50 in percent; A_cls, A_reg: PGD-10 on classes or boxes, l∞ 4/255."
    columns = tuple(Column(f"{attack} {key}") for attack, key in kinds)
    source = f"published, MS-COCO, another scale ({published.PAPER}, Table S5)"
    title = "Downstream detection (Table S5)"
    more = {"of": "initialisation", "command": "make downstream-detection COCO=FOLDER"}
    return Table("table_s5", title, caption, columns, tuple(rows), source, **more)


def _with_folder(source: str) -> str:
    return f'make generalisation ARGS="--data.init_args.sources.{source}.init_args.folder=FOLDER"'


def _figure(value: float | None, reason: str) -> Cell:
    return Cell(note=reason) if value is None or math.isnan(value) else Cell(value)


def _precision(precision: BoxPrecision | None, attack: str, key: str) -> Cell:
    if precision is None or getattr(precision, key) < 0:
        return Cell(note=f"{attack}: not measured")
    return Cell(100 * getattr(precision, key))
