"""Tables and their cells, and how they are printed as Markdown and CSV.

Cells hold scores as fractions. The printers choose the notation: Markdown, LaTeX and HTML show percentages, CSV the
fractions in full.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from jaxser.evaluation.csv_cells import to_cells


@dataclass(frozen=True)
class Score:
    """A score with an optional standard deviation.

    Attributes:
        mean: None is printed as a dash.
        std: None if it is undefined or not reported.
        best: whether it is the best of its column, and printed in bold.
        mark: a suffix that the caption explains, such as a dagger.
        in_percent: whether it is a fraction that is printed in percent; otherwise it has three decimals.
    """

    mean: float | Decimal | None
    std: float | Decimal | None = None
    best: bool = False
    mark: str = ""
    in_percent: bool = True

    def show(self, value: float | Decimal | None) -> str:
        """Return the mean or the standard deviation as it is printed."""
        return number(value, self.in_percent)


@dataclass(frozen=True)
class Range:
    """An interval of scores; None is printed as a dash."""

    low: float | None
    high: float | None
    in_percent: bool = True

    def show(self, value: float | None) -> str:
        """Return one end as it is printed."""
        return number(value, self.in_percent)


@dataclass(frozen=True)
class Number:
    """A number that is not a fraction, such as a p value.

    It has two significant digits, and all of them in CSV.
    """

    value: float


Cell = str | int | Score | Range | Number


@dataclass(frozen=True)
class Table:
    """A table; every row has as many cells as the header.

    Attributes:
        name: an identifier that is valid in file names.
    """

    name: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def percent(value: float | Decimal | None) -> str:
    """Return a fraction in percent, without the sign.

    A float has one decimal, and a `Decimal` all of its own.
    """
    if isinstance(value, Decimal):  # a printed score
        return f"{value.scaleb(2):f}"
    return "–" if value is None else f"{100 * value:.1f}"


def number(value: float | Decimal | None, in_percent: bool) -> str:
    """Return a score in percent, or with three decimals."""
    return percent(value) if in_percent or value is None else f"{value:.3f}"


def text(cell: Cell) -> str:
    """Return a cell as plain text, with scores in percent."""
    if isinstance(cell, Range):
        return "–" if cell.low is None else f"{cell.show(cell.low)} to {cell.show(cell.high)}"
    if isinstance(cell, Score):
        return cell.show(cell.mean) + ("" if cell.std is None else f" ± {cell.show(cell.std)}") + cell.mark
    return f"{cell.value:.2g}" if isinstance(cell, Number) else str(cell)


def markdown(table: Table) -> str:
    """Return a table in Markdown below its caption, with special characters escaped."""
    rows = [map(escape_markdown, table.header), *(map(_markdown_cell, row) for row in table.rows)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    numeric = [all(not isinstance(row[n], str) for row in table.rows) for n in range(len(table.header))]
    rule = "|" + "|".join("---:" if right else "---" for right in numeric) + "|"
    return "\n".join([f"**{escape_markdown(table.caption)}**", "", lines[0], rule, *lines[1:], ""])


def escape_markdown(value: str) -> str:
    """Return a text on one line, with the special characters of Markdown and HTML escaped."""
    value = " ".join(value.split()).replace("&", "&amp;").replace("<", "&lt;").replace("\\", "\\\\")
    for mark in "|*_`[":
        value = value.replace(mark, "\\" + mark)
    return value


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a header and rows as CSV.

    A spreadsheet program does not take its text for formulas.
    """
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(map(to_cells, [header, *rows]))
    return file.getvalue()


def table_csv(table: Table) -> str:
    """Return a table as CSV.

    Standard deviations and the ends of intervals have columns of their own.
    """
    columns: list[tuple[Any, ...]] = []
    for n, name in enumerate(table.header):
        columns += _csv_columns(name, [row[n] for row in table.rows])
    return csv_text([column[0] for column in columns], zip(*(column[1:] for column in columns), strict=True))


def _markdown_cell(cell: Cell) -> str:
    shown = escape_markdown(text(cell))
    return f"**{shown}**" if isinstance(cell, Score) and cell.best else shown


def _csv_columns(name: str, cells: Sequence[Cell]) -> list[tuple[Any, ...]]:
    """Return one or two CSV columns for a column of the table; each starts with its name."""
    if any(isinstance(cell, Range) for cell in cells):
        ends = [(cell.low, cell.high) if isinstance(cell, Range) else (cell, None) for cell in cells]
        low, high = zip(*ends, strict=True)
        return [(f"{name} low", *low), (f"{name} high", *high)]
    values = [(name, *map(_plain, cells))]
    stds = [cell.std if isinstance(cell, Score) else None for cell in cells]
    return values if all(std is None for std in stds) else [*values, (f"{name} ±", *stds)]


def _plain(cell: Cell) -> Any:
    return cell.mean if isinstance(cell, Score) else cell.value if isinstance(cell, Number) else cell
