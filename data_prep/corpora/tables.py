"""Tables of a corpus: CSV with any usual delimiter, and JSON lines.

Every row is accounted for. A row that does not fit the header is yielded with the reason. A quote that is never closed,
or that swallows other rows, is an error, since the rows after it cannot be told apart. Tables with tabs are usually
written without quoting: there, a quote that does not enclose a cell is a character of the text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxser.types import InputError

from .parsing import decode_text, printable, read_file

DELIMITERS = (",", ";", "\t", "|")
MAX_CELL = 100_000
"""The longest allowed cell, in characters. Longer ones come from damaged files."""

MISSING = frozenset(("nan", "NaN", "-nan", "<NA>", "#N/A", "N/A", "n/a", "NA", "NaT", "None", "NULL", "null"))
"""Cells by which programs write that a value is missing."""

IsRow = Callable[[Mapping[str, str], Mapping[str, str]], bool]
"""Whether cells look like a row of a table, given the row that contains them, which is empty if it is unusable."""

_MAX_BYTES = 2**31
_SPACES = "".join(  # around cells, also those without a width
    (" \t\r\n\xa0\u1680", *map(chr, range(0x2000, 0x200C)), "\u202f\u205f\u2060\u2800\u3000\u3164\ufeff")
)
_DELIMITER_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?(?:\r\n|\n|\r|$)', re.IGNORECASE)  # Excel's first line
_LINE_END = re.compile(r"\r\n|\n|\r")
_QUOTED = re.compile(r'"([^"]*+(?:""[^"]*+)*+)"')
_ENCLOSED = re.compile(
    r'"[^"\t]*+(?:""[^"\t]*+)*+"[ ]*(?=[\t\r\n]|\Z)'
)  # a cell of several lines between tabs
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:e[+-]?[0-9]+)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        line: the number of its first line.
        cells: its cells without surrounding spaces, by column.
        problem: why the row is unusable; "" if it is not.
    """

    line: int
    cells: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


def read_text(table: Path) -> tuple[str, str]:
    """Read a table and return its text and its encoding.

    Raises:
        InputError: if the file cannot be read or is not text.
    """
    try:
        text, encoding = decode_text(read_file(table, _MAX_BYTES))
    except ValueError as error:
        raise InputError(f"{table}: {error}") from None
    if (position := text.find("\0")) >= 0:
        line = len(_LINE_END.findall(text, 0, position)) + 1
        raise InputError(
            f"{table}: line {line} contains a NUL byte, so this is not text; save spreadsheets as CSV"
        )
    return text, encoding


def csv_rows(
    table: Path,
    text: str,
    column_names: Callable[[list[str]], list[str]],
    required: Collection[str],
    is_row: IsRow,
) -> Iterator[Row]:
    """Yield the rows of a CSV table; rows without any content are skipped.

    Args:
        table: the file's path, for messages.
        text: its contents.
        column_names: called with the header; returns the column names to use, or raises `InputError`.
        required: the names of the required columns in lower case, by which the delimiter is recognised.
        is_row: whether a line within a quoted cell is a row of its own, so that the quote is not closed.

    Raises:
        InputError: if a quote is not closed.
    """
    text, first_line, delimiter = _separator_line(text)
    delimiter = delimiter or _guess_delimiter(text, required)
    rows = (row for row in split_rows(table, text, delimiter, first_line) if any(row.cells))
    header = next(rows, None)
    names = column_names(header.cells if header else [])
    padded = len(names)
    while names and not names[-1]:
        names.pop()  # a spreadsheet pads all of its rows with empty cells
    for row in rows:
        named = _named(row, names, padded, delimiter)
        if row.lines > 1 and (line := _swallowed_row(row, named, delimiter, names, is_row)):
            raise InputError(
                _open_quote(table, row.quote_line, f" (its cell contains the row of line {line})")
            )
        yield named


@dataclass(frozen=True)
class RawRow:
    """The cells of a row without surrounding spaces, and its lines.

    Attributes:
        line: the number of its first line.
        cells: its cells.
        text: the row itself.
        lines: the number of its lines.
        quote_line: the line on which the last cell with line breaks begins.
        problem: why it cannot be divided into cells; "" if it can.
    """

    line: int
    cells: list[str]
    text: str
    lines: int = 1
    quote_line: int = 0
    problem: str = ""


def split_rows(table: Path, text: str, delimiter: str, first_line: int = 1) -> Iterator[RawRow]:
    """Divide a text into rows and cells.

    Args:
        table: the file's path, for messages.
        text: the text.
        delimiter: the character between cells.
        first_line: the number of the text's first line.

    Raises:
        InputError: if a quote is not closed.
    """
    after = re.escape(delimiter)
    unquoted = re.compile(rf"[^{after}\r\n]*")
    quoted = re.compile(rf'[ ]*"([^"\r\n]*+(?:""[^"\r\n]*+)*+)"[ ]*(?=[{after}\r\n]|\Z)')
    position, line = 0, first_line
    while position < len(text):
        start, first, quote_line, problem = position, line, 0, ""
        cells: list[str] = []
        while True:
            if cell := quoted.match(text, position):
                position = cell.end()
                cells.append(cell[1].replace('""', '"').strip(_SPACES))
            elif text.startswith('"', position) and (delimiter != "\t" or _ENCLOSED.match(text, position)):
                cell = _QUOTED.match(text, position)
                breaks = len(_LINE_END.findall(cell[0])) if cell else 0
                rest = unquoted.match(text, cell.end() if cell else position)
                assert rest is not None  # it matches the empty text
                if cell is None or (breaks and rest[0].strip()):
                    raise InputError(_open_quote(table, line))
                if rest[0].strip():
                    problem = "text follows a closing quote; write quotes within a quoted cell twice"
                position, line, quote_line = rest.end(), line + breaks, line if breaks else quote_line
                cells.append(cell[1].replace('""', '"').strip(_SPACES))
            else:
                cell = unquoted.match(text, position)
                assert cell is not None
                position = cell.end()
                cells.append(cell[0].strip(_SPACES))
            if not text.startswith(delimiter, position):
                break
            position += 1
        yield RawRow(first, cells, text[start:position], line - first + 1, quote_line, problem)
        if end := _LINE_END.match(text, position):
            position, line = end.end(), line + 1


def json_rows(text: str, columns: Collection[str]) -> Iterator[Row]:
    """Yield the rows of a table of JSON objects, one per line.

    Args:
        text: the table.
        columns: the names of the columns that are used, in lower case; their values must be texts or numbers.
    """
    for number, line in enumerate(_LINE_END.split(text), start=1):
        line = line.strip(_SPACES)
        if not line:
            continue
        try:
            cells = json.loads(line, object_pairs_hook=_json_cells)
            if not isinstance(cells, dict):
                raise ValueError("not an object")
            for name, cell in cells.items():
                if not isinstance(cell, str) and name in columns:
                    raise ValueError(f"{name} is not a text or a number")
        except (ValueError, RecursionError) as error:
            yield Row(number, problem=f"not a JSON object with a text or a number for each column ({error})")
            continue
        named = {name: cell if isinstance(cell, str) else "" for name, cell in cells.items()}
        yield Row(number, named, _too_long(named))


def parse_number(cell: str) -> float:
    """Parse a number with a decimal point or a decimal comma.

    Raises:
        ValueError: if the cell is no such number.
    """
    if not _NUMBER.fullmatch(cell.strip()):
        raise ValueError(f"{cell!r} is not a number")
    number = float(cell.strip().replace(",", "."))
    if math.isinf(number):
        raise ValueError(f"{cell[:40]!r}... is too large")
    return number + 0.0  # without the sign of -0


def best_delimiter(lines: Sequence[str], count: int) -> str:
    """Return the delimiter by which most lines have `count` cells.

    The comma comes last, as it may be a decimal comma.
    """
    preferred = ("\t", ";", "|", ",")
    return max(preferred, key=lambda one: sum(line.count(one) == count - 1 for line in lines))


def _separator_line(text: str) -> tuple[str, int, str]:
    """Return the text after Excel's `sep=;`, the number of its first line, and the delimiter, "" if unknown."""
    if found := _SEPARATOR_LINE.match(text):
        return text[found.end() :], 2, found[1]
    return text, 1, ""


def _guess_delimiter(text: str, required: Collection[str]) -> str:
    """Return the delimiter that separates the most required columns in the header, or else the most cells."""
    header = next((line for line in _LINE_END.split(text[: 10**6]) if line.strip()), "")

    def score(delimiter: str) -> tuple[int, int]:
        names = [cell.strip(f'{_SPACES}"').lower() for cell in header.split(delimiter)]
        return len(set(required) & set(names)), len(names)

    return max(DELIMITERS, key=score)


def _named(row: RawRow, names: Sequence[str], padded: int, delimiter: str) -> Row:
    """Name the cells of a row. The `padded` columns include those without a name at the end of the header."""
    cells = row.cells
    while len(names) < len(cells) <= padded and not cells[-1]:
        cells = cells[:-1]
    problem = row.problem
    if not problem and len(cells) != len(names):
        advice = f"quote a cell that contains {_DELIMITER_NAMES.get(delimiter, repr(delimiter))}"
        problem = f"{len(cells)} cell{'s' * (len(cells) != 1)}, but {len(names)} columns"
        problem += f"; {advice}" if len(cells) > len(names) else ""
    if problem:
        return Row(row.line, problem=problem)
    named = {name: printable(cell) for name, cell in zip(names, cells, strict=True) if name}
    return Row(row.line, named, _too_long(named))


def _too_long(cells: Mapping[str, str]) -> str:
    """Return the problem of a row with a cell that is too long, or ""."""
    found = [name for name, cell in cells.items() if len(cell) > MAX_CELL]
    return f"column {found[0][:60]} has more than {MAX_CELL} characters" if found else ""


def _open_quote(table: Path, line: int, reason: str = "") -> str:
    return f"{table}: line {line}: a quote is not closed{reason}; close it, or write quotes within a quoted cell twice"


def _swallowed_row(row: RawRow, named: Row, delimiter: str, names: Sequence[str], is_row: IsRow) -> int:
    """Return the number of the first line within a row that is a row of its own; 0 if there is none."""
    for number, line in enumerate(_LINE_END.split(row.text)[1:], start=row.line + 1):
        try:
            [inner] = split_rows(Path(), line, delimiter) if line else []
        except (InputError, ValueError):
            continue
        if len(inner.cells) >= len(names) and is_row(
            dict(zip(names, inner.cells, strict=False)), named.cells
        ):
            return number
    return 0


def _json_cells(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Convert an object; nested values are kept for `json_rows` to check."""
    cells: dict[str, Any] = {}
    for key, value in pairs:
        name = printable(key.strip(_SPACES).lower())
        if name in cells:
            raise ValueError(f"two values of {name[:60]!r}")
        nested = isinstance(value, dict | list)
        cells[name] = value if nested else "" if value is None else printable(str(value)).strip(_SPACES)
    return cells
