"""A table of results as CSV, Markdown and LaTeX."""

import base64
import csv
from collections.abc import Callable, Iterable
from io import StringIO
from pathlib import Path

from datamodules.files.atomic_files import write_text
from pipeline.drawing.markdown_table import markdown_table
from pipeline.report.cells import Cell, Column, Table

DASH = "\N{EN DASH}"
LATEX_SIGNS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "∞": r"$_\infty$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    DASH: "--",
    "ε": r"$\epsilon$",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}


def to_csv(table: Table) -> str:
    """Comma-separated values: every figure with its interval, count and reason in full."""
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    header = [table.of, "detail", "published"]
    for column in table.columns:
        parts = ("", " low", " high", " n", " note")
        header += [f"{column.title}{part}" for part in parts]
    writer.writerow(header)
    for row in table.rows:
        line: list[object] = [row.name, row.detail, "yes" if row.published else "no"]
        for cell in row.cells:
            found = cell or Cell()
            line += [_raw(found.value), _raw(found.low), _raw(found.high), found.n, found.note]
        writer.writerow(line)
    return buffer.getvalue()


def to_markdown(table: Table) -> str:
    """A pipe table with its caption above and the reasons below."""
    lines = [f"**{table.title}.** {table.caption}", ""]
    rows = [
        (
            f"{row.name}, published" if row.published else row.name,
            *(_plain(table, *pair) for pair in zip(table.columns, row.cells, strict=True)),
        )
        for row in table.rows
    ]
    head = (table.of, *_titles(table))
    lines.append(markdown_table(head, rows, numbers=len(table.columns)))
    lines += ["", *(f"({mark}) {reason}" for mark, reason in table.notes.items())]
    if table.published and table.source:
        lines.append(f"{table.source[0].upper()}{table.source[1:]}.")
    return "\n".join(lines).rstrip() + "\n"


def to_latex(table: Table) -> str:
    """A `table` float with booktabs rules; the reasons follow below the last rule."""
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_latex(table.caption)}}}"]
    lines.append(rf"\label{{tab:{table.name}}}")
    lines.append(rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}")
    lines.append(r"\toprule")
    lines.append(" & ".join(_latex(title) for title in (table.of, *_titles(table))) + r" \\")
    for place, rows in enumerate((table.measured, table.published)):
        if not rows:
            continue
        lines.append(r"\midrule")
        if place:
            span = len(table.columns) + 1
            lines.append(rf"\multicolumn{{{span}}}{{l}}{{\emph{{{_latex(table.source)}}}}} \\")
        for row in rows:
            cells = [
                _latex_cell(table, column, cell)
                for column, cell in zip(table.columns, row.cells, strict=True)
            ]
            lines.append(" & ".join((_latex(row.name), *cells)) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    for mark, reason in table.notes.items():
        lines.append(rf"\par\footnotesize $^{{{mark}}}$ {_latex(reason)}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


FORMATS: dict[str, tuple[str, Callable[[Table], str]]] = {
    "csv": ("text/csv", to_csv),
    "md": ("text/markdown", to_markdown),
    "tex": ("application/x-tex", to_latex),
}
"""Suffix to media type and writer."""


def write_tables(tables: Iterable[Table], folder: Path) -> list[Path]:
    """Writes every table in every format to `folder/NAME.SUFFIX`; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for table in tables:
        for suffix, (_, convert) in FORMATS.items():
            path = folder / f"{table.name}.{suffix}"
            write_text(path, convert(table))
            files.append(path)
    return files


def download_links(table: Table) -> dict[str, str]:
    """Each format as a `data:` address, so that the page needs no file beside it."""
    return {
        suffix: f"data:{media};charset=utf-8;base64,"
        + base64.b64encode(convert(table).encode()).decode()
        for suffix, (media, convert) in FORMATS.items()
    }


def _titles(table: Table) -> list[str]:
    return [column.title for column in table.columns]


def _raw(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _plain(table: Table, column: Column, cell: Cell | None) -> str:
    if cell is None or cell.value is None:
        mark = table.mark_of(cell)
        return f"{DASH} ({mark})" if mark else DASH
    text = f"{cell.value:.{column.digits}f}"
    if cell.low is not None and cell.high is not None:
        text += f" ({cell.low:.{column.digits}f}{DASH}{cell.high:.{column.digits}f})"
    return text


def _latex(text: str) -> str:
    return "".join(LATEX_SIGNS.get(sign, sign) for sign in text)


def _latex_cell(table: Table, column: Column, cell: Cell | None) -> str:
    if cell is None or cell.value is None:
        mark = table.mark_of(cell)
        return f"--$^{{{mark}}}$" if mark else "--"
    text = f"{cell.value:.{column.digits}f}"
    if cell.low is not None and cell.high is not None:
        low, high = (f"{end:.{column.digits}f}" for end in (cell.low, cell.high))
        text += rf" {{\scriptsize [{low}, {high}]}}"
    return text
