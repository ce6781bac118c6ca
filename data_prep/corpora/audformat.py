"""audformat databases: a header `db.yaml`, and tables `db.NAME.csv`.

Tables have a row per file or segment of a file. The labels are in the columns whose scheme or name is `emotion`. Other
tables may add the speaker, the transcription and the gender; a table's `split_id` gives the part of its rows. Labels of
schemes that are dictionaries are resolved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from jaxser.types import InputError

from .columns import OTHER_NAMES
from .parsing import MAX_TEXT_BYTES, decode_text, read_file
from .tables import MISSING, Row, csv_rows, read_text

_TIME = re.compile(r"(?:([0-9]+) days?)? ?(?:([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2}(?:\.[0-9]+)?))?")
_NAMES = {column: (column, *OTHER_NAMES.get(column, ())) for column in ("label", "speaker", "gender", "text")}


@dataclass(frozen=True)
class Database:
    """The rows with labels and their places, and how each column was read."""

    rows: list[tuple[str, Row]]
    columns: dict[str, str] = field(default_factory=dict)


def read_database(root: Path, label: str = "") -> Database:
    """Read a database.

    Args:
        root: its folder.
        label: the column of labels; "" is the one called `emotion` or the like.

    Raises:
        InputError: if the header or a table cannot be read, or no table has a column of labels.
    """
    header = _header(root)
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    places: dict[tuple[str, str, str], str] = {}
    problems: list[tuple[str, Row]] = []
    files: dict[str, dict[str, str]] = {}
    described: dict[str, str] = {}
    for name, table in header.tables.items():
        columns = header.columns_of(table, label)
        if not columns:
            continue
        path = root / f"db.{name}.csv"
        split = str(table.get("split_id") or "")
        described |= {column: f"{name}/{own}" for own, column in columns.items() if column not in described}
        for row in _rows(path):
            cells = {
                column: header.resolve(table, own, row.cells.get(own, ""))
                for own, column in columns.items()
                if row.cells.get(own, "") not in ("", *MISSING)
            }
            cells |= {"split": split} if split else {}
            key = tuple(row.cells.get(part, "") for part in ("file", "start", "end"))
            if row.problem:
                problems.append((f"{path.name}:{row.line}", row))
            elif "label" in columns.values():
                merged = rows.setdefault((key[0], key[1], key[2]), {})
                places.setdefault((key[0], key[1], key[2]), f"{path.name}:{row.line}")
                merged.update({column: cell for column, cell in cells.items() if not merged.get(column)})
                described |= {"split": "split_id"} if split else {}
            else:
                files.setdefault(key[0], {}).update(cells)
    if "label" not in described:
        raise InputError(
            f"{root / 'db.yaml'}: no table has a column {label or 'emotion'}; name the column of labels by "
            "--columns=label=NAME"
        )
    header.add_genders(rows, files, described)
    complete = [
        (places[key], _row({"path": key[0], **files.get(key[0], {}), **cells}, key[1], key[2]))
        for key, cells in rows.items()
    ]
    if any(key[1] or key[2] for key in rows):
        described |= {"start": "start", "end": "end"}
    return Database(complete + problems, {"path": "file", **described})


@dataclass(frozen=True)
class _Header:
    """The header of a database."""

    root: Path
    content: Mapping[str, Any]
    known_labels: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def tables(self) -> Mapping[str, Mapping[str, Any]]:
        return {
            name: table for name, table in _mapping(self.content.get("tables")).items() if _mapping(table)
        }

    def columns_of(self, table: Mapping[str, Any], label: str) -> dict[str, str]:
        """Return the column of `COLUMNS` by its name in the table, for those that are used."""
        found: dict[str, str] = {}
        own_columns = _mapping(table.get("columns"))
        for column, names in _NAMES.items():
            wanted = (label.lower(),) if column == "label" and label else names
            for own, description in own_columns.items():
                scheme = str(_mapping(description).get("scheme_id") or "")
                if column not in found.values() and (own.lower() in wanted or scheme.lower() in wanted):
                    found[own.lower()] = column
        return found

    def labels_of(self, scheme: str) -> Mapping[str, Any]:
        """Return the values of a scheme's labels: those in the header, or the rows of a miscellaneous table."""
        if scheme not in self.known_labels:
            self.known_labels[scheme] = self._read_labels(scheme)
        return self.known_labels[scheme]

    def _read_labels(self, scheme: str) -> Mapping[str, Any]:
        labels = _mapping(_mapping(self.content.get("schemes")).get(scheme)).get("labels")
        if isinstance(labels, str):
            table = _mapping(_mapping(self.content.get("misc_tables")).get(labels))
            [index, *_] = [str(level) for level in _mapping(table.get("levels"))] or [scheme]
            path = self.root / f"db.{labels}.csv"
            return {row.cells.get(index.lower(), ""): row.cells for row in _rows(path) if not row.problem}
        return {str(key): value for key, value in _mapping(labels).items()}

    def scheme_of(self, table: Mapping[str, Any], own: str) -> str:
        columns = {name.lower(): column for name, column in _mapping(table.get("columns")).items()}
        return str(_mapping(columns.get(own)).get("scheme_id") or "")

    def resolve(self, table: Mapping[str, Any], own: str, cell: str) -> str:
        """Return the text that a scheme of texts has for a cell, such as a sentence for its code."""
        value = self.labels_of(self.scheme_of(table, own)).get(cell, cell)
        return value if isinstance(value, str) else cell

    def add_genders(
        self,
        rows: Mapping[Any, dict[str, str]],
        files: Mapping[str, dict[str, str]],
        described: dict[str, str],
    ) -> None:
        """Add the genders that the scheme of the speakers has."""
        speakers = self.labels_of("speaker")
        for cells in (*rows.values(), *files.values()):
            properties = _mapping(speakers.get(cells.get("speaker", "")))
            gender = properties.get("gender") or properties.get("sex")
            if gender and "gender" not in cells:
                cells["gender"] = str(gender)
                described.setdefault("gender", "the scheme of the speakers")


def _header(root: Path) -> _Header:
    path = root / "db.yaml"
    try:
        content = yaml.load(decode_text(read_file(path, MAX_TEXT_BYTES))[0], Loader=yaml.CSafeLoader)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not the header of a database")
    return _Header(root, content)


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping with texts as keys; a list becomes the keys of one, and anything else none."""
    if isinstance(value, list):
        return {str(entry): None for entry in value}
    return {str(key): entry for key, entry in value.items()} if isinstance(value, dict) else {}


def _rows(path: Path) -> Iterator[Row]:
    if not path.is_file():
        others = [
            other.name for suffix in (".parquet", ".pkl") if (other := path.with_suffix(suffix)).is_file()
        ]
        advice = f"; found {others[0]}: save the database with storage_format='csv'" if others else ""
        raise InputError(f"{path}: no such file{advice}")
    text, _ = read_text(path)
    names = partial(_column_names, path)
    return csv_rows(path, text, names, ("file", "start", "end"), lambda cells, within: False)


def _column_names(path: Path, header: list[str]) -> list[str]:
    names = [name.lower() for name in header]
    if repeated := sorted({name for name in names if name and names.count(name) > 1}):
        raise InputError(f"{path}: two columns are called {', '.join(repeated)}")
    return names


def _row(cells: Mapping[str, str], start: str, end: str) -> Row:
    try:
        span = {"start": _seconds(start), "end": _seconds(end)}
    except ValueError as error:
        return Row(0, dict(cells), str(error))
    identity = re.sub(r"\.[^./]*$", "", cells["path"])
    if span["start"] in ("", "0.0") and not span["end"]:
        return Row(0, {**cells, "id": identity})
    return Row(0, {**cells, **span, "id": f"{identity}_{span['start']}_{span['end'] or 'end'}"})


def _seconds(cell: str) -> str:
    """Return the seconds of `0 days 00:00:00.5`, or "" if the time is missing (`NaT`)."""
    if cell in ("", *MISSING):
        return ""
    match = _TIME.fullmatch(cell.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f"{cell[:40]!r} is not a time such as 0 days 00:00:00.5")
    days, hours, minutes, seconds = match.groups(default="0")
    return repr(86400 * int(days) + 3600 * int(hours) + 60 * int(minutes) + float(seconds))
