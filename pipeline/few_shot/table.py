"""Few-shot accuracies and differences on the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.few_shot.episode_scores import Setting
from pipeline.few_shot.summary import FewShotComparison, FewShotRow, FewShotSummary


def print_summary(summary: FewShotSummary) -> None:
    """Prints accuracies in percent, and which of the classes the model knew before."""
    drawn = summary.drawn
    title = f"{summary.model}: {drawn.way}-way, {drawn.queries} queries of each class"
    _print(title, "accuracy", summary.rows, "{:.2f}")
    print(known_classes(summary))


def print_comparison(comparison: FewShotComparison) -> None:
    """Prints paired differences in percentage points."""
    title = f"{comparison.model} less {comparison.against}, paired by episode"
    _print(title, "difference", comparison.rows, "{:+.2f}")


def known_classes(summary: FewShotSummary) -> str:
    """Whether the classes are new to the model, as far as that is recorded."""
    drawn, number = summary.drawn, summary.drawn.trained_classes
    if number is None:
        return (
            f"whether the {drawn.classes} classes are new to the model is not recorded: they are "
            "not, if it was trained on them"
        )
    if number == 0:
        return f"none of the {drawn.classes} classes is among those the model was trained on"
    return f"{number} of the {drawn.classes} classes are not new: the model was trained on them"


def _print(title: str, what: str, rows: Sequence[FewShotRow], form: str) -> None:
    table = Table(title=escape(title), title_justify="left")
    table.add_column("view, shots, classifier")
    for column in (what, "95 % interval", "episodes"):
        table.add_column(column, justify="right")
    for row in rows:
        low, high = (form.format(100 * end) for end in row.ci95)
        name = str(Setting(row.view, row.shots, row.classifier))
        table.add_row(name, form.format(100 * row.accuracy), f"{low} to {high}", str(row.episodes))
    Console().print(table)
