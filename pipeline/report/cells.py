"""A table of results as the report shows and exports it: columns, rows, cells and reasons."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase

from datamodules.files.errors import UserError
from pipeline.evaluation.summaries import MeanRow, SetRow, ThreatRow


@dataclass(frozen=True)
class Cell:
    """One figure, or why there is none.

    Attributes:
        value: In the unit of its table; None where it was not measured.
        low: Lower end of the 95 % interval.
        high: Upper end of it.
        n: Number of images.
        note: Why there is no value, one line.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Column:
    """Title of a column, and how many digits its figures have after the point."""

    title: str
    digits: int = 1


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        name: What was measured.
        detail: More about it, such as its weights or architecture.
        cells: In the order of the columns; None where a published table has no such column.
        published: Whether it is copied from a paper.
    """

    name: str
    detail: str
    cells: tuple[Cell | None, ...]
    published: bool = False


@dataclass(frozen=True)
class Table:
    """Measured rows followed by published ones.

    Attributes:
        name: Stem of its files, such as `table_2`.
        title: Heading.
        caption: What the figures are.
        columns: Columns besides that of the names.
        rows: All rows.
        source: What stands above the published rows.
        of: Title of the column of the names.
        command: What fills its measured rows.
    """

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    source: str = ""
    of: str = "model"
    command: str = "make evaluate"

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise UserError(
                    f"{self.name}: row {row.name} has {len(row.cells)} cells for "
                    f"{len(self.columns)} columns"
                )

    @property
    def measured(self) -> list[Row]:
        """Rows of this runs folder."""
        return [row for row in self.rows if not row.published]

    @property
    def published(self) -> list[Row]:
        """Rows copied from a paper."""
        return [row for row in self.rows if row.published]

    @property
    def has_values(self) -> bool:
        """Whether anything was measured here."""
        return any(cell and cell.value is not None for row in self.measured for cell in row.cells)

    @property
    def reasons(self) -> list[str]:
        """Why measured cells are empty, each reason once, in reading order."""
        cells = [cell for row in self.measured for cell in row.cells if cell]
        return list(dict.fromkeys(c.note for c in cells if c.value is None and c.note))

    @property
    def notes(self) -> dict[str, str]:
        """Reasons by their mark, `a` to `z`, then `aa`; each reason once, in reading order."""
        cells = [cell for row in self.rows for cell in row.cells if cell and cell.note]
        reasons = dict.fromkeys(cell.note for cell in cells if cell.value is None)
        return {mark(place): reason for place, reason in enumerate(reasons)}

    def mark_of(self, cell: Cell | None) -> str:
        """Mark of a cell's reason; empty where it has none."""
        marks = {reason: name for name, reason in self.notes.items()}
        return "" if cell is None or cell.value is not None else marks.get(cell.note, "")


def mark(place: int) -> str:
    """Letters for a footnote: `a`, ..., `z`, `aa`, `ab`, ..."""
    letters = len(ascii_lowercase)
    before = mark(place // letters - 1) if place >= letters else ""
    return before + ascii_lowercase[place % letters]


def share_cell(row: ThreatRow | SetRow | MeanRow) -> Cell:
    """The cell of a measured accuracy, in percent; where there is none, why."""
    if row.accuracy is None or row.ci95 is None:
        return Cell(note=getattr(row, "missing", "") or "not measured")
    low, high = row.ci95
    return Cell(100 * row.accuracy, 100 * low, 100 * high, row.n)


def published_row(name: str, detail: str, values: Sequence[float | None]) -> Row:
    """A row copied from a paper; None where it gives no figure."""
    cells = tuple(None if value is None else Cell(value) for value in values)
    return Row(name, detail, cells, published=True)
