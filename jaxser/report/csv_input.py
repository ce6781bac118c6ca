"""CSV files of other programs as columns, checked so that no row is lost or shifted."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxser.evaluation.csv_cells import from_cell
from jaxser.types import InputError

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, eq=False)
class Columns:
    """The cells of a CSV file below its header, without surrounding spaces.

    Attributes:
        by_name: the cells of each column.
        lines: the number of each row's last line in the file, for messages.
    """

    path: Path
    by_name: Mapping[str, Sequence[str]]
    lines: Sequence[int]

    def __getitem__(self, name: str) -> Sequence[str]:
        return self.by_name[name]

    def __contains__(self, name: str) -> bool:
        return name in self.by_name

    def error(self, row: int, reason: str) -> InputError:
        """Return the error that names the line of a row."""
        return InputError(f"{self.path}:{self.lines[row]} {reason}")


def read_columns(path: Path, needed: Sequence[str]) -> Columns:
    """Read a CSV file with a header; empty lines are skipped.

    Args:
        path: the file.
        needed: the columns that must be there, with text in every row.

    Raises:
        InputError: if it cannot be read, a column is missing or twice, or a row is incomplete.
    """
    header, rows, lines = _read(path)
    _check_header(path, header, needed)
    if not rows:
        raise InputError(f"{path} has no lines below its header")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise InputError(
                f"{path}:{line} is incomplete: it has {len(row)} cells, and the header {len(header)}; "
                "text with a comma or a quote needs quotes"
            )
    cells = zip(*rows, strict=True)
    columns = Columns(
        path,
        {name: [from_cell(cell.strip()) for cell in own] for name, own in zip(header, cells, strict=True)},
        lines,
    )
    for name in needed:
        for number, cell in enumerate(columns[name]):
            if not cell:
                raise columns.error(number, f"is incomplete: each line needs {', '.join(needed)}")
        if _CONTROL.search("".join(columns[name])):
            controls = ((number, _CONTROL.search(cell)) for number, cell in enumerate(columns[name]))
            number, found = next((number, found) for number, found in controls if found)
            raise columns.error(number, _about_control(found[0], name))
    return columns


def _about_control(character: str, name: str) -> str:
    if character in "\r\n":
        return f"has a line break in column {name}: a quote may be missing"
    return f"has the control character U+{ord(character):04X} in column {name}"


def _read(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    rows, lines = [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if row:
                    rows.append(row)
                    lines.append(reader.line_num)
    except (OSError, ValueError, csv.Error) as error:
        where = f"{path}:{lines[-1] + 1}" if lines else path
        reason = "a quote is not closed" if "unexpected end of data" in str(error) else error
        raise InputError(f"{where} cannot be read: {reason}") from None
    header = [name.strip() for name in rows[0]] if rows else []
    return header, rows[1:], lines[1:]


def _check_header(path: Path, header: Sequence[str], needed: Sequence[str]) -> None:
    if missing := [name for name in needed if name not in header]:
        raise InputError(
            f"{path} has no column {', '.join(missing)}: its first line must name {', '.join(needed)}, "
            "separated by commas"
        )
    if twice := [name for name in dict.fromkeys(header) if header.count(name) > 1]:
        raise InputError(f"{path} has two columns {twice[0]!r}: leave one of them out")
