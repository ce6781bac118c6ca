"""Cells of CSV files, whose text a spreadsheet program does not take for a formula.

A program that opens a CSV file runs cells such as `=cmd|' /C calc'!A0`. An apostrophe before the first character
marks text, and is removed again when jaxser reads the file. Numbers, negative ones too, stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_FORMULA = re.compile(r"'*[=+\-@＝＋－＠\t\r].", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def to_cell(value: Any) -> Any:
    """Return a value for a cell.

    Text that would be a formula gets an apostrophe; anything else is unchanged.
    """
    is_formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if is_formula else value


def to_cells(values: Iterable[Any]) -> list[Any]:
    """Return the values of a row for its cells."""
    return [to_cell(value) for value in values]


def from_cell(cell: str) -> str:
    """Return the text that `to_cell` made a cell of."""
    is_escaped = cell.startswith("'") and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell[1:])
    return cell[1:] if is_escaped else cell
