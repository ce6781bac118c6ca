"""Your own corpus: a table with one row per utterance, as CSV or JSONL.

    path,label,speaker,text
    clips/0001.wav,angry,anna,Give it back!

`path` and `label` are required. Optional columns are `id` (default: the path without its suffix), `text`, `speaker`,
`gender` (F, M), `session`, `dialogue`, `split` (train, validation, test), `start` and `end` (seconds: the row is that
part of a longer recording) and `alignment` (a file with the times of the words). Paths are relative to the root.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from jaxser.types import InputError, Reading, Rejection, UsageError, Utterance, Word

from .parsing import csv_rows, decode, parse_wdseg, printable

TABLES = ("metadata.csv", "metadata.jsonl")
REQUIRED = ("path", "label")
COLUMNS = (
    *REQUIRED,
    "id",
    "text",
    "speaker",
    "gender",
    "session",
    "dialogue",
    "split",
    "start",
    "end",
    "alignment",
)
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
    "": "",
}
GENDERS = {
    **dict.fromkeys(("f", "female", "woman", "w"), "F"),
    **dict.fromkeys(("m", "male", "man"), "M"),
    "": "",
}

_WORD_COLUMNS = ("start", "end", "word")
_WORD_TIERS = ("words", "word", "ort", "mau")
_QUOTED = r'"((?:[^"]|"")*)"'
_TIER = re.compile(rf"item \[[0-9]+\]:\s*class = \"IntervalTier\"\s*name = {_QUOTED}")
_INTERVAL = re.compile(rf"xmin = (\S+)\s*xmax = (\S+)\s*text = {_QUOTED}")


def read(root: Path, metadata: str | Path | None = None) -> Reading:
    """Read the table of a corpus.

    Unusable rows are rejected with their line number. Audio files are not opened: missing ones are rejected later, when
    features are computed. Flag: `bad_alignment` (the alignment file is missing or contradicts itself; words are None).

    Args:
        root: the folder that paths are relative to.
        metadata: the table; by default `metadata.csv` or `metadata.jsonl` in `root`.

    Raises:
        InputError: if there is no table, it has no rows, or a required column is missing.
        UsageError: if `metadata` is not a file.
    """
    table = _find_table(Path(root), metadata)
    corpus = _Corpus(Path(root), table)
    rows = _json_rows(table, corpus) if table.suffix.lower() in (".jsonl", ".json") else _table_rows(table)
    for line, row in rows:
        corpus.add(line, row)
    if not corpus.utterances and not corpus.rejected:
        raise InputError(f"{table}: the table has no rows")
    facts: dict[str, Any] = {"table": table.name}
    if corpus.ignored:
        facts["ignored_columns"] = sorted(corpus.ignored)
    return Reading(tuple(corpus.utterances.values()), tuple(corpus.rejected), facts=facts)


def read_words(path: Path) -> tuple[Word, ...]:
    """Read an alignment file: words and their times, in seconds of the utterance's own recording.

    Supported are Sphinx's `.wdseg`, Praat's `.TextGrid` in the long format (the tier `words`, or the only tier), and
    tables of `start,end,word` with or without a header.

    Raises:
        ValueError: if the file is malformed, or times overlap or decrease.
    """
    text = _decode_table(path.read_bytes())
    if path.suffix.lower() == ".wdseg":
        return parse_wdseg(text.split("\n"))
    rows = _textgrid_rows(text) if path.suffix.lower() == ".textgrid" else _word_rows(text)
    words, latest = [], 0.0
    for start_cell, end_cell, word in rows:
        try:
            start, end = float(start_cell), float(end_cell)
        except ValueError:
            raise ValueError(f"{start_cell!r} to {end_cell!r} are not numbers of seconds") from None
        if not latest - 1e-6 <= start <= end < math.inf:
            raise ValueError(f"{start:g} to {end:g} s does not follow {latest:g} s")
        latest = end
        if word.strip() and not re.fullmatch(r"<.*>|\[.*\]", word.strip()):
            words.append(Word(word.strip().lower(), start, end))
    return tuple(words)


def _find_table(root: Path, metadata: str | Path | None) -> Path:
    if metadata is not None:
        if not Path(metadata).is_file():
            raise UsageError(f"--metadata={metadata}: no such file")
        return Path(metadata)
    found = [root / name for name in TABLES if (root / name).is_file()]
    if not found:
        raise InputError(
            f"{root}: contains neither {' nor '.join(TABLES)}; write one with the columns "
            f"{', '.join(REQUIRED)} (docs/reference/corpora.md), or name a table by --metadata=FILE"
        )
    if len(found) > 1:
        raise InputError(f"{root}: contains both {' and '.join(TABLES)}; choose one by --metadata=FILE")
    return found[0]


@dataclass
class _Corpus:
    root: Path
    table: Path
    utterances: dict[str, Utterance] = field(default_factory=dict)
    rejected: list[Rejection] = field(default_factory=list)
    ignored: set[str] = field(default_factory=set)

    def add(self, line: int, row: Mapping[str, str]) -> None:
        """Add a row as an utterance, or reject it."""
        where = f"{self.table.name}:{line}"
        identity = row.get("id", "") or _without_suffix(row.get("path", ""))
        self.ignored.update(row.keys() - set(COLUMNS))
        try:
            utterance = self._utterance(identity, row)
        except ValueError as error:
            self.rejected.append(Rejection(identity, where, str(error)))
            return
        if identity in self.utterances:
            self.rejected.append(
                Rejection(identity, where, f"the same id as {self.utterances[identity].wav}")
            )
            return
        self.utterances[identity] = self._aligned(utterance, row.get("alignment", ""), where)

    def _utterance(self, identity: str, row: Mapping[str, str]) -> Utterance:
        for column in REQUIRED:
            if not row.get(column):
                raise ValueError(f"no {column}")
        return Utterance(
            id=identity,
            wav=_forward_slashes(row["path"]) + _span(row.get("start", ""), row.get("end", "")),
            label=row["label"],
            transcript=row.get("text", ""),
            speaker=row.get("speaker", ""),
            gender=_choice("gender", row.get("gender", ""), GENDERS),
            session=row.get("session", ""),
            dialogue=row.get("dialogue", ""),
            split=_choice("split", row.get("split", ""), SPLITS),
        )

    def _aligned(self, utterance: Utterance, alignment: str, where: str) -> Utterance:
        if not alignment:
            return utterance
        try:
            words = read_words(self.root / _forward_slashes(alignment))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self.rejected.append(Rejection(utterance.id, where, f"alignment {alignment} not used: {reason}"))
            return replace(utterance, flags=("bad_alignment",))
        return replace(utterance, words=words)


def _textgrid_rows(text: str) -> Iterator[tuple[str, str, str]]:
    tiers = list(_TIER.finditer(text))
    named = [tier for tier in tiers if tier[1].lower().split(" - ")[-1] in _WORD_TIERS]
    chosen = named or (tiers if len(tiers) == 1 else [])
    if not chosen:
        names = [tier[1] for tier in tiers]
        raise ValueError(f"no tier of words among {names} (is the TextGrid in the long format?)")
    begin = chosen[0].end()
    end = min((tier.start() for tier in tiers if tier.start() > begin), default=len(text))
    for interval in _INTERVAL.finditer(text, begin, end):
        yield interval[1], interval[2], interval[3].replace('""', '"')


def _word_rows(text: str) -> Iterator[tuple[str, str, str]]:
    delimiter = "\t" if "\t" in text.split("\n", 1)[0] else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for number, cells in enumerate(reader, start=1):
            is_header = number == 1 and tuple(cell.strip().lower() for cell in cells) == _WORD_COLUMNS
            if is_header or not any(cells):
                continue
            if len(cells) != len(_WORD_COLUMNS):
                raise ValueError(f"row {number} is not start, end and word")
            yield cells[0], cells[1], cells[2]
    except csv.Error as error:
        raise ValueError(f"not a table ({error})") from None


def _table_rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    text = _read_text(table)
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    return csv_rows(table, text, partial(_column_names, table), delimiter)


def _json_rows(table: Path, corpus: _Corpus) -> Iterator[tuple[int, dict[str, str]]]:
    names: set[str] = set()
    rows = []
    for number, line in enumerate(_read_text(table).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError) as error:
            where = f"{table.name}:{number}"
            corpus.rejected.append(Rejection("", where, f"not a JSON object ({error})"))
            continue
        cells = {
            name.strip().lower(): printable("" if cell is None else str(cell)).strip()
            for name, cell in row.items()
        }
        names.update(cells)
        rows.append((number, cells))
    if rows:
        _column_names(table, sorted(names))
    yield from rows


def _column_names(table: Path, header: list[str]) -> list[str]:
    """Return the names in lower case; raises `InputError` if a required one is missing or one is repeated."""
    names = [name.strip().lower() for name in header]
    if missing := [name for name in REQUIRED if name not in names]:
        raise InputError(
            f"{table}: no column {' and no column '.join(missing)}; found {', '.join(names)[:200] or 'none'}; "
            f"known columns are {', '.join(COLUMNS)}"
        )
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{table}: two columns are called {', '.join(repeated)}")
    return names


def _read_text(table: Path) -> str:
    try:
        return _decode_table(table.read_bytes())
    except OSError as error:
        raise InputError(f"{table}: cannot be read ({error.strerror})") from None


def _decode_table(content: bytes) -> str:
    """Decode what spreadsheets write: UTF-8, UTF-16 with a byte order mark, or else Windows' Latin-1."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", "replace")
    return decode(content, fallback="cp1252")


def _span(start_cell: str, end_cell: str) -> str:
    """The suffix of a path for a part of the recording, as `jaxser.features.audio.read_audio` expects it."""
    if not start_cell and not end_cell:
        return ""
    try:
        start, end = float(start_cell or 0), float(end_cell or "inf")
    except ValueError:
        raise ValueError(f"start {start_cell!r}, end {end_cell!r}: not numbers of seconds") from None
    if not 0 <= start < end or math.isinf(start):
        raise ValueError(
            f"start {start_cell or 0}, end {end_cell or 'none'}: start must be 0 or more, and end after start"
        )
    return f"#t={start:.6f}" + ("" if math.isinf(end) else f",{end:.6f}")


def _choice(column: str, cell: str, choices: Mapping[str, str]) -> str:
    if cell.lower() not in choices:
        allowed = ", ".join(sorted(set(choices.values()) - {""}))
        raise ValueError(f"{column} {cell!r}: must be one of {allowed}")
    return choices[cell.lower()]


def _forward_slashes(path: str) -> str:
    """Convert Windows paths."""
    return path.replace("\\", "/")


def _without_suffix(path: str) -> str:
    return re.sub(r"(?<=[^/])\.[^./]*$", "", _forward_slashes(path))
