"""Models beside people: accuracy difference, observed and error consistency (Table S4)."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.evaluation.human_decisions import (
    CONDITIONS,
    Decisions,
    image_id,
    make_decisions,
    read_decisions,
    read_decisions_file,
)
from datamodules.evaluation.human_stimuli import EXPERIMENTS
from datamodules.evaluation.object_groups import human_categories
from datamodules.files.errors import MissingInputError, UserError
from pipeline import published
from pipeline.drawing.markdown_table import markdown_table
from pipeline.evaluation.human_consistency import (
    METRICS,
    accuracy,
    human_alignment,
    mean_over_experiments,
    model_alignment,
)
from pipeline.evaluation.human_plots import draw_alignment
from pipeline.evaluation.summaries import AlignmentRow, HumanAlignment
from pipeline.runs.stages import GENERALISATION


def read_people(folder: Path) -> dict[str, list[Decisions]]:
    """Decisions of the people in a folder: `subj` is `subject-...`, as released.

    Raises:
        MissingInputError: if there are none.
    """
    people = {
        name: [one for one in makers if one.subject.startswith("subject-")]
        for name, makers in read_decisions(folder).items()
    }
    found = {name: group for name, group in people.items() if group}
    if not found:
        raise MissingInputError(f"{folder} holds no decisions of people (subj: subject-01, ...)")
    return found


def read_model(
    model: Path, people: Mapping[str, Sequence[Decisions]]
) -> tuple[dict[str, Decisions], dict[str, str]]:
    """Decisions of a model.

    Args:
        model: run folder of `generalisation` with records of `din/<experiment>` (or the folder
            `RUNS/evaluate/<model>` above it), a folder of CSV files by experiment, or one CSV
            file named after its experiment.
        people: people by experiment; the model must have seen exactly their images.

    Returns:
        Decisions by experiment, and for the other experiments why there are none.

    Raises:
        MissingInputError: if there are no decisions.
        UserError: if a folder holds several decision makers for one experiment.
    """
    if model.is_file():
        found = read_decisions_file(model)
    else:
        runs = [run for run in (model / GENERALISATION.name, model) if (run / "records").is_dir()]
        if runs:
            found = _from_records(runs[0], people)
        else:
            several = read_decisions(model)
            crowded = [name for name, makers in several.items() if len(makers) > 1]
            if crowded:
                raise UserError(
                    f"{model / crowded[0]} holds {len(several[crowded[0]])} decision makers: give "
                    "each model a folder of its own"
                )
            found = {name: makers[0] for name, makers in several.items()}
    found = {name: found[name] for name in EXPERIMENTS if name in found and name in people}
    if not found:
        raise MissingInputError(
            f"{model} holds no decisions on the experiments: run `generalisation` with the "
            "stimuli folder (data.init_args.sources.din.init_args.folder), or give a CSV file"
        )
    missing = {name: "no decisions of the model" for name in people if name not in found}
    return found, missing


def _from_records(run: Path, people: Mapping[str, Sequence[Decisions]]) -> dict[str, Decisions]:
    names = human_categories()
    found = {}
    for experiment in people:
        files = sorted((run / "records" / "din" / experiment).glob("[!.]*.parquet"))
        if not files:
            continue
        one = people[experiment][0]
        condition_of = dict(zip(one.images, one.conditions, strict=True))
        rows = [
            (
                row["key"],
                condition_of.get(image_id(row["key"]), one.conditions[0]),
                names[row["label"]],
                names[row["prediction"]],
            )
            for row in pa.concat_tables([pq.read_table(file) for file in files]).to_pylist()
        ]
        subject = run.parent.name if run.name == GENERALISATION.name else run.name
        found[experiment] = make_decisions(experiment, subject, rows)
    return found


def align(
    people: Mapping[str, Sequence[Decisions]],
    models: Mapping[str, Mapping[str, Decisions]],
    missing: Mapping[str, Mapping[str, str]],
) -> HumanAlignment:
    """All figures.

    Args:
        people: people by experiment.
        models: decisions by experiment, by model.
        missing: reasons by experiment, by model.
    """
    rows = []
    crowds = {name: group for name, group in people.items() if len(group) > 1}
    for model in ["humans", *models]:
        if model == "humans":
            by_name = {
                name: human_alignment(group) | {"ood_accuracy": accuracy(group, group[0].counted)}
                for name, group in crowds.items()
            }
            reasons = {name: "one person" for name in people if name not in crowds}
        else:
            by_name = {
                name: model_alignment(one, people[name])
                | {"ood_accuracy": accuracy([one], one.counted)}
                for name, one in models[model].items()
            }
            reasons = dict(missing.get(model, {}))
        mean = mean_over_experiments(by_name) if by_name else None
        rows.append(AlignmentRow(model, by_name, len(by_name), reasons, mean))
    absent = [name for name in EXPERIMENTS if name not in people]
    conditions = {name: list(CONDITIONS.get(name, ("",))) for name in people}
    return HumanAlignment(list(people), absent, rows, conditions)


def markdown(alignment: HumanAlignment) -> str:
    """The figures as Markdown: means beside the published rows, then error consistency alone."""
    columns = [*METRICS, "ood_accuracy"]
    means = [
        (row.name, str(row.of), *(_shown((row.mean or {}).get(name)) for name in columns))
        for row in alignment.rows
    ]
    for other in published.TABLE_S4:
        figures = (other.accuracy_difference, other.observed_consistency, other.error_consistency)
        means.append((f"{other.method}, published", "17", *map(_shown, figures), "-"))
    consistency = [
        (
            experiment,
            *(
                _shown(row.experiments.get(experiment, {}).get("error_consistency"))
                for row in alignment.rows
            ),
        )
        for experiment in alignment.experiments
    ]
    consistency += [(name, "no human decisions") for name in alignment.absent]
    names = [row.name for row in alignment.rows]
    tables = (
        markdown_table(["decisions", "experiments", *columns], means),
        markdown_table(["error consistency", *names], consistency),
    )
    return "\n\n".join(tables) + "\n"


def _shown(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def main(humans: Path, out: Path, model: Path | list[Path] | None = None) -> None:
    """Compares models with people: accuracy difference, observed and error consistency (Table S4).

    Writes `human_alignment.json`, `human_alignment.md` and the plots.

    Args:
        humans: folder of CSV files by experiment.
        out: folder to write into.
        model: run folders or CSV files of models.

    Raises:
        MissingInputError: if there are no decisions of people or of a model.
        UserError: if decisions do not fit each other.
    """
    if not humans.is_dir():
        raise MissingInputError(f"{humans} is not a folder: give the human decisions")
    people = read_people(humans)
    given = [model] if isinstance(model, Path) else model or []
    read = {_name(one): read_model(one, people) for one in given}
    if len(read) < len(given):
        raise UserError("two models have one name: give them from folders of different names")
    models = {name: found for name, (found, _) in read.items()}
    alignment = align(people, models, {name: missing for name, (_, missing) in read.items()})
    alignment.write(out)
    text = markdown(alignment)
    (out / "human_alignment.md").write_text(text)
    draw_alignment(people, models, out)
    print(text, end="")
    print(f"plots and figures in {out}")


def _name(model: Path) -> str:
    resolved = model.resolve()
    return resolved.parent.name if resolved.name == GENERALISATION.name else resolved.stem
