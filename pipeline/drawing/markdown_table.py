"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int = 0) -> str:
    """A pipe table, one line a row.

    Args:
        head: titles of the columns.
        rows: a text for each column; bars are escaped, line breaks become spaces.
        numbers: so many of the last columns are aligned to the right.
    """
    rule = ["---"] * (len(head) - numbers) + ["--:"] * numbers
    lines = [[_escaped(text) for text in line] for line in (head, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
