"""Layouts in which corpora with labels of their own are stored, read as rows of one table.

`find_layout` recognises them: a table, Hugging Face's audiofolder, audformat, Kaldi, the fold files of EmoBox,
LJSpeech's table without a header, and folders named after labels.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from jaxser.types import InputError, UsageError

from . import audformat, kaldi
from .columns import ATTRIBUTES, COLUMNS, SPLITS, VOTES, Columns
from .parsing import is_apple_double, printable
from .row_paths import FOLDERS_OF_AUDIO, SUFFIXES, complete_paths
from .tables import DELIMITERS, RawRow, Row, csv_rows, json_rows, read_text, split_rows

TABLES = ("metadata.csv", "metadata.jsonl")
_JSON = (".jsonl", ".json", ".ndjson")
_FOLD_FILE = re.compile(r".*_(train|valid|test)_fold_?[0-9]+\.jsonl")


@dataclass
class Layout:
    """A corpus as rows of one table.

    Attributes:
        name: what was recognised, for the user.
        rows: the place of each row, and the row with the columns of `COLUMNS` and others.
        columns: how each column was read, for the user.
        facts: other properties for the manifest.
        warnings: sentences for the user.
    """

    name: str
    rows: Iterable[tuple[str, Row]]
    columns: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def find_layout(root: Path, metadata: str | Path | None, columns: Columns) -> Layout:
    """Recognise the layout of a corpus.

    Args:
        root: the folder of the corpus.
        metadata: a table, or a folder of EmoBox's fold files or of Kaldi's; None searches `root`.
        columns: the names of the table's columns.

    Raises:
        InputError: if nothing is recognised, or a table cannot be read.
        UsageError: if `metadata` does not exist.
    """
    if metadata is None:
        return _within(root, columns)
    place = Path(metadata)
    if place.is_file():
        return _tables("a table", root, [(place, {})], columns)
    if not place.is_dir():
        raise UsageError(f"--metadata={metadata}: no such file")
    if layout := _emobox(root, place, columns) or _kaldi(place, columns):
        return layout
    raise UsageError(
        f"--metadata={metadata}: a folder, but neither of EmoBox's fold files nor of Kaldi's; give a table"
    )


def _within(root: Path, columns: Columns) -> Layout:
    tables = [root / name for name in TABLES if (root / name).is_file()]
    if len(tables) > 1:
        raise InputError(f"{root}: contains both {' and '.join(TABLES)}; choose one by --metadata=FILE")
    if tables:
        return _single_table(root, tables[0], columns)
    layout = (
        _audformat(root, columns)
        or _kaldi(root, columns)
        or _audiofolder(root, columns)
        or _emobox(root, root, columns)
        or _folders(root, columns)
    )
    if layout is None:
        raise InputError(
            f"{root}: contains neither {' nor '.join(TABLES)}; write one with the columns "
            f"{', '.join(columns.required)} (docs/reference/corpora.md), or name a table by --metadata=FILE"
        )
    return layout


def _single_table(root: Path, table: Path, columns: Columns) -> Layout:
    text, _ = read_text(table)
    if not columns.given and _is_ljspeech(root, table, text):
        return _tables("LJSpeech", root, [(table, {})], _ljspeech_columns(table, text))
    header = re.split(r"\r\n|\n|\r", text[:10_000], maxsplit=1)[0].lower()
    is_audiofolder = "file_name" in header and "path" not in columns.given
    name = "Hugging Face audiofolder" if is_audiofolder else "a table"
    return _tables(name, root, [(table, {})], columns, split_by_folder=is_audiofolder)


def _audiofolder(root: Path, columns: Columns) -> Layout | None:
    """Hugging Face's layout with a table in the folder of each split."""
    places = [(path, path.parent.name) for name in TABLES for path in sorted(root.glob(f"*/{name}"))]
    if not places:
        return None
    are_splits = all(name.lower() in SPLITS for _, name in places)
    fixed = [(path, {"split": name} if are_splits else {}) for path, name in places]
    return _tables("Hugging Face audiofolder", root, fixed, columns)


def _emobox(root: Path, folder: Path, columns: Columns) -> Layout | None:
    """EmoBox's fold files, one for each part of a fold."""
    parts = {
        path: match[1]
        for path in sorted(folder.glob("*.jsonl"))
        if (match := _FOLD_FILE.fullmatch(path.name))
    }
    if not parts:
        return None
    return _tables(
        "EmoBox fold files", root, [(path, {"split": part}) for path, part in parts.items()], columns
    )


def _kaldi(folder: Path, columns: Columns) -> Layout | None:
    folders = (
        [folder]
        if (folder / "wav.scp").is_file()
        else sorted(path.parent for path in folder.glob("*/wav.scp"))
    )
    if not folders:
        return None
    if columns.given.keys() - {"label"}:
        raise UsageError(
            "--columns: of a Kaldi folder, only the file of labels can be named: --columns=label=FILE"
        )
    are_splits = len(folders) > 1 and all(path.name.lower() in SPLITS for path in folders)
    label = columns.given.get("label", "")
    parts = [kaldi.read_folder(path, label, path.name if are_splits else "") for path in folders]
    named = parts[0].columns | ({"split": "the folder's name"} if are_splits else {})
    return Layout("Kaldi", chain.from_iterable(part.rows for part in parts), named)


def _audformat(root: Path, columns: Columns) -> Layout | None:
    if not (root / "db.yaml").is_file():
        return None
    database = audformat.read_database(root, columns.given.get("label", ""))
    return Layout("audformat", database.rows, database.columns)


def _tables(
    name: str,
    root: Path,
    tables: Sequence[tuple[Path, Mapping[str, str]]],
    columns: Columns,
    split_by_folder: bool = False,
) -> Layout:
    """Return the rows of tables, each with cells that all of its rows have.

    Paths are relative to the folder of the table, if that is below the root.
    """
    layout = Layout(name, ())
    every: list[tuple[str, Row]] = []
    for table, fixed in tables:
        base = table.parent.relative_to(root).as_posix() if table.parent.is_relative_to(root) else "."
        prefix = "" if base == "." or len(tables) == 1 else f"{base}/"
        rows = _read_table(table, columns, layout)
        if fixed:
            layout.columns |= dict.fromkeys(fixed, "the file's or folder's name")
        for row in rows:
            cells = {**fixed, **{key: cell for key, cell in row.cells.items() if cell or key not in fixed}}
            if prefix and cells.get("path"):
                cells["path"] = prefix + cells["path"]
            where = f"{prefix}{table.name}:{row.line}"
            every.append((where, row if row.problem else replace(row, cells=cells)))
    if not every:
        raise InputError(f"{tables[0][0]}: the table has no rows")
    places = dict.fromkeys(where.rpartition(":")[0] for where, _ in every)
    layout.facts |= {"table": ", ".join(places)}
    every, completion = complete_paths(root, every)
    if completion:
        layout.columns["path"] += completion
    layout.rows = _with_split_of_folder(every, layout) if split_by_folder else every
    return layout


def _read_table(table: Path, columns: Columns, layout: Layout) -> list[Row]:
    text, encoding = read_text(table)
    if encoding == "cp1252":
        layout.facts["encoding"] = encoding
        layout.warnings.append(f"{table.name} is not UTF-8 and was read as Windows-1252; check its accents")

    def rename(header: list[str]) -> list[str]:
        names = columns.resolve(table, header)
        layout.columns |= {names[name.lower()]: name for name in header if name.lower() in names}
        return [names.get(name.lower(), _free(name.lower())) for name in header]

    if table.suffix.lower() in _JSON:
        return _json_rows(table, text, rename)
    if columns.are_numbers:
        return list(_numbered_rows(table, text, rename))
    return list(csv_rows(table, text, rename, columns.known, _looks_like_row))


def _free(name: str) -> str:
    """Return a name for a column that is not used, other than that of a column that is."""
    return f"{name} (not used)" if name in COLUMNS else name


def _json_rows(table: Path, text: str, rename: Callable[[list[str]], list[str]]) -> list[Row]:
    if text.lstrip("\ufeff \t\r\n").startswith("["):
        raise InputError(f"{table}: a JSON array; write one object per line, without commas between them")
    rows = list(json_rows(text, ()))
    header = sorted({name for row in rows for name in row.cells})
    if not any(not row.problem for row in rows):
        return rows
    new = dict(zip(header, rename(header), strict=True))
    used = [name for name in header if new[name] in COLUMNS]
    rows = list(json_rows(text, used))
    return [replace(row, cells={new[name]: cell for name, cell in row.cells.items()}) for row in rows]


def _numbered_rows(table: Path, text: str, rename: Callable[[list[str]], list[str]]) -> Iterator[Row]:
    """Yield the rows of a table without a header; cells that are separated by | have no quotes, as in LJSpeech."""
    first = next((line for line in re.split(r"\r\n|\n|\r", text) if line.strip()), "")
    delimiter = max(DELIMITERS, key=first.count)
    raw = _literal_rows(text) if delimiter == "|" else split_rows(table, text, delimiter)
    rows = (row for row in raw if any(row.cells))
    head = next(rows, None)
    if head is None:
        return
    names = rename([str(number + 1) for number in range(len(head.cells))])
    for row in chain([head], rows):
        problem = row.problem
        if not problem and len(row.cells) != len(names):
            problem = f"{len(row.cells)} cells, but {len(names)} in the first row"
        cells = {} if problem else dict(zip(names, map(printable, row.cells), strict=True))
        yield Row(row.line, cells, problem)


def _literal_rows(text: str) -> Iterator[RawRow]:
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text.removeprefix("\ufeff")), start=1):
        yield RawRow(number, [cell.strip() for cell in line.split("|")], line)


def _is_ljspeech(root: Path, table: Path, text: str) -> bool:
    lines = [line for line in islice(text.splitlines(), 3) if line.strip()]
    return (
        table.suffix.lower() == ".csv"
        and bool(lines)
        and all(line.count("|") in (1, 2, 3) for line in lines)
        and not set(lines[0].lower().split("|")) & set(COLUMNS)
        and any((root / name).is_dir() for name in FOLDERS_OF_AUDIO)
    )


def _ljspeech_columns(table: Path, text: str) -> Columns:
    """Return the columns id, text, normalised text and, as LJSpeech itself has none, label."""
    first = next(line for line in text.splitlines() if line.strip())
    if first.count("|") < 3:
        raise InputError(
            f"{table}: LJSpeech's layout has no labels; add them as a fourth cell, or name their column by "
            "--columns=path=1,text=2,label=NUMBER"
        )
    return Columns({"path": "1", "text": "3", "label": "4"})


def _looks_like_row(cells: Mapping[str, str], within: Mapping[str, str]) -> bool:
    """Return whether cells are annotated, with the suffix of a recording or of the row that they are in."""
    suffix = Path(cells.get("path", "")).suffix.lower()
    expected = Path(within.get("path", "")).suffix.lower()
    is_annotated = any(cells.get(column) for column in ("label", *ATTRIBUTES, VOTES))
    return is_annotated and bool(suffix) and (suffix == (expected or suffix) or suffix in SUFFIXES)


def _with_split_of_folder(rows: list[tuple[str, Row]], layout: Layout) -> list[tuple[str, Row]]:
    """Take the split from the first folder of the paths, if all are in folders of splits and no column has it."""
    usable = [row.cells for _, row in rows if row.cells.get("path")]
    folders = {cells["path"].partition("/")[0].lower() for cells in usable if "/" in cells["path"]}
    if "split" in layout.columns or not folders or not folders <= SPLITS.keys():
        return rows
    if any("/" not in cells["path"] for cells in usable):
        return rows
    layout.columns["split"] = "the first folder of the path"
    return [
        (where, replace(row, cells={**row.cells, "split": row.cells["path"].partition("/")[0]}))
        if row.cells.get("path")
        else (where, row)
        for where, row in rows
    ]


def _folders(root: Path, columns: Columns) -> Layout | None:
    """Recordings in folders that are named after their labels, and possibly splits: `train/angry/x.wav`."""
    paths = sorted(
        path.relative_to(root)
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES and not is_apple_double(path)
    )
    depths = Counter(len(path.parts) - 1 for path in paths)
    if not depths or depths.most_common(1)[0][0] == 0:
        return None
    depth = depths.most_common(1)[0][0]
    within = [path for path in paths if len(path.parts) == depth + 1]
    levels = [sorted({path.parts[level] for path in within}) for level in range(depth)]
    named = _levels(root, levels, columns)
    rows = []
    for path in paths:
        if len(path.parts) != depth + 1:
            reason = f"not in {depth} folder{'s' * (depth > 1)}, as most recordings are"
            rows.append((printable(path.as_posix()), Row(0, problem=reason)))
            continue
        cells = {column: printable(path.parts[level]) for column, level in named.items()}
        rows.append((printable(path.as_posix()), Row(0, {"path": printable(path.as_posix()), **cells})))
    described = {column: f"folder{level + 1}" for column, level in named.items()}
    return Layout("folders named after labels", rows, described)


def _levels(root: Path, levels: Sequence[Sequence[str]], columns: Columns) -> dict[str, int]:
    """Return the level of the folders that name each column."""
    if columns.given:
        known = {f"folder{level + 1}": level for level in range(len(levels))}
        if unknown := [name for name in columns.given.values() if name.lower() not in known]:
            raise InputError(
                f"{root}: no table, and --columns names {unknown[0]}; without a table, name folders: "
                f"{', '.join(known)}"
            )
        named = {column: known[name.lower()] for column, name in columns.given.items()}
        if "label" in named:
            return named
        raise UsageError("--columns: without a table, name the folder of the labels, such as label=folder1")
    splits = [
        level for level, names in enumerate(levels) if {name.lower() for name in names} <= SPLITS.keys()
    ]
    others = [level for level in range(len(levels)) if level not in splits]
    if len(others) == 1 and len(splits) <= 1:
        return {**({"split": splits[0]} if splits else {}), "label": others[0]}
    shown = "; ".join(
        f"folder{level + 1}: {', '.join(names[:4])}{', ...' * (len(names) > 4)}"
        for level, names in enumerate(levels)
    )
    raise InputError(
        f"{root}: no table, and which folders are the labels is not clear ({shown}); name them, such as "
        "--columns=label=folder1,speaker=folder2"
    )
