"""A corpus of one's own: a table with a row an utterance, as CSV or JSONL.

    path,label,speaker,text
    clips/0001.wav,angry,anna,Give it back!

`path` and `label` are needed. Optional are `id` (default: the path without its ending), `text`, `speaker`, `gender`
(F, M), `session`, `dialogue`, `split` (train, validation, test), `start` and `end` (seconds: the row is that part of a
longer recording) and `alignment` (a file with the times of the words). Paths are relative to the root.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jaxser.types import InputError, Reading, Rejection, UsageError, Utterance, Word

from .iemocap import parse_alignment

TABLES = ("metadata.csv", "metadata.jsonl")
NEEDED = ("path", "label")
COLUMNS = (
    *NEEDED,
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
_TEXTGRID_WORDS = ("words", "word", "ort", "mau")
_QUOTED = r'"((?:[^"]|"")*)"'
_TIER = re.compile(rf"item \[[0-9]+\]:\s*class = \"IntervalTier\"\s*name = {_QUOTED}")
_INTERVAL = re.compile(rf"xmin = (\S+)\s*xmax = (\S+)\s*text = {_QUOTED}")


def read(root: Path, metadata: str | Path | None = None) -> Reading:
    """The rows of the table, `metadata.csv` or `metadata.jsonl` in `root` where `metadata` names no other.

    Rows that cannot be used are rejected with their line; a missing sound file is, when it is read. Raises `InputError`
    where there is no table, or columns that are needed are missing. Flags: `bad_alignment` (its file is missing or
    contradicts itself: words are None).
    """
    table = _table(Path(root), metadata)
    corpus = _Corpus(Path(root), table)
    rows = _json_rows(table, corpus) if table.suffix.lower() in (".jsonl", ".json") else _csv_rows(table)
    for where, row in rows:
        corpus.add(where, row)
    if not corpus.utterances and not corpus.rejected:
        raise InputError(f"{table}: no rows")
    facts: dict[str, Any] = {"table": table.name}
    if corpus.ignored:
        facts["ignored_columns"] = sorted(corpus.ignored)
    return Reading(tuple(corpus.utterances.values()), tuple(corpus.rejected), facts=facts)


def _table(root: Path, metadata: str | Path | None) -> Path:
    if metadata is not None:
        if not Path(metadata).is_file():
            raise UsageError(f"--metadata={metadata}: there is no such file")
        return Path(metadata)
    found = [root / name for name in TABLES if (root / name).is_file()]
    if not found:
        raise InputError(
            f"{root}: neither {' nor '.join(TABLES)} in it; write one with the columns "
            f"{', '.join(NEEDED)} (docs/reference/corpora.md), or name it by --metadata=FILE"
        )
    if len(found) > 1:
        raise InputError(f"{root}: both {' and '.join(TABLES)} in it; name one by --metadata=FILE")
    return found[0]


@dataclass
class _Corpus:
    root: Path
    table: Path
    utterances: dict[str, Utterance] = field(default_factory=dict)
    rejected: list[Rejection] = field(default_factory=list)
    ignored: set[str] = field(default_factory=set)

    def add(self, line: int, row: Mapping[str, str]) -> None:
        """Use a row, or say why not."""
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
        for column in NEEDED:
            if not row.get(column):
                raise ValueError(f"no {column}")
        return Utterance(
            id=identity,
            wav=_slashed(row["path"]) + _span(row.get("start", ""), row.get("end", "")),
            label=row["label"],
            transcript=row.get("text", ""),
            speaker=row.get("speaker", ""),
            gender=_chosen("gender", row.get("gender", ""), GENDERS),
            session=row.get("session", ""),
            dialogue=row.get("dialogue", ""),
            split=_chosen("split", row.get("split", ""), SPLITS),
        )

    def _aligned(self, utterance: Utterance, alignment: str, where: str) -> Utterance:
        if not alignment:
            return utterance
        try:
            words = read_words(self.root / _slashed(alignment))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self.rejected.append(Rejection(utterance.id, where, f"alignment {alignment} not used: {reason}"))
            return replace(utterance, flags=("bad_alignment",))
        return replace(utterance, words=words)


def read_words(path: Path) -> tuple[Word, ...]:
    """The words of an alignment file and their times in seconds of the utterance's own sound.

    A `.wdseg` of Sphinx, a Praat `.TextGrid` in its long form (its tier `words`, or the only one), or a table
    `start,end,word` with or without that head. Raises `ValueError` where times contradict each other.
    """
    text = _decoded(path.read_bytes())
    if path.suffix.lower() == ".wdseg":
        return parse_alignment(text.split("\n"))
    rows = _textgrid(text) if path.suffix.lower() == ".textgrid" else _word_table(text)
    words, latest = [], 0.0
    for start, end, word in rows:
        try:
            begins, ends = float(start), float(end)
        except ValueError:
            raise ValueError(f"{start!r} to {end!r} are no seconds") from None
        if not latest - 1e-6 <= begins <= ends < math.inf:
            raise ValueError(f"{begins:g} to {ends:g} s does not follow {latest:g} s")
        latest = ends
        if word.strip() and not re.fullmatch(r"<.*>|\[.*\]", word.strip()):
            words.append(Word(word.strip().lower(), begins, ends))
    return tuple(words)


def _textgrid(text: str) -> Iterator[tuple[str, str, str]]:
    tiers = list(_TIER.finditer(text))
    named = [tier for tier in tiers if tier[1].lower().split(" - ")[-1] in _TEXTGRID_WORDS]
    chosen = named or (tiers if len(tiers) == 1 else [])
    if not chosen:
        raise ValueError(
            f"no tier of words among {[tier[1] for tier in tiers]} (a TextGrid in its long form?)"
        )
    begin = chosen[0].end()
    end = min((tier.start() for tier in tiers if tier.start() > begin), default=len(text))
    for interval in _INTERVAL.finditer(text, begin, end):
        yield interval[1], interval[2], interval[3].replace('""', '"')


def _word_table(text: str) -> Iterator[tuple[str, str, str]]:
    delimiter = "\t" if "\t" in text.split("\n", 1)[0] else ","
    for number, cells in enumerate(_csv(text, delimiter), start=1):
        if not any(cells) or (number == 1 and [cell.strip().lower() for cell in cells] == [*_WORD_COLUMNS]):
            continue
        if len(cells) != 3:
            raise ValueError(f"row {number} is not start, end and word")
        yield cells[0], cells[1], cells[2]


def _csv(text: str, delimiter: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    except csv.Error as error:
        raise ValueError(f"no table ({error})") from None


def _csv_rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    text = _read(table)
    head = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        names = [name.strip().lower() for name in reader.fieldnames or ()]
        _check_columns(table, names)
        reader.fieldnames = names
        for row in reader:
            yield (
                reader.line_num,
                {name: (cell or "").strip() for name, cell in row.items() if isinstance(name, str)},
            )
    except csv.Error as error:
        raise InputError(f"{table}: line {reader.line_num + 1} is no CSV ({error})") from None


def _json_rows(table: Path, corpus: _Corpus) -> Iterator[tuple[int, dict[str, str]]]:
    names: set[str] = set()
    rows = []
    for number, line in enumerate(_read(table).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("no object")
        except (ValueError, RecursionError) as error:
            corpus.rejected.append(Rejection("", f"{table.name}:{number}", f"no JSON object ({error})"))
            continue
        cells = {
            name.strip().lower(): _printable("" if cell is None else str(cell)).strip()
            for name, cell in row.items()
        }
        names.update(cells)
        rows.append((number, cells))
    if rows:
        _check_columns(table, sorted(names))
    yield from rows


def _check_columns(table: Path, names: list[str]) -> None:
    if missing := [name for name in NEEDED if name not in names]:
        raise InputError(
            f"{table}: no column {' and no column '.join(missing)}; found {', '.join(names)[:200] or 'none'}; "
            f"known are {', '.join(COLUMNS)}"
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{table}: two columns {', '.join(twice)}")


def _read(table: Path) -> str:
    try:
        return _decoded(table.read_bytes())
    except OSError as error:
        raise InputError(f"{table}: cannot be read ({error.strerror})") from None


def _decoded(content: bytes) -> str:
    """UTF-8, UTF-16 as spreadsheets write it, or else Windows' Latin-1; a byte order mark is no part of the text."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def _span(start: str, end: str) -> str:
    """As `jaxser.features.audio.read_audio` understands it."""
    if not start and not end:
        return ""
    try:
        begins, ends = float(start or 0), float(end or "inf")
    except ValueError:
        raise ValueError(f"start {start!r}, end {end!r}: not seconds") from None
    if not 0 <= begins < ends or math.isinf(begins):
        raise ValueError(f"start {start or 0}, end {end or 'none'}: must be 0 or more, and end after start")
    return f"#t={begins:.6f}" + ("" if math.isinf(ends) else f",{ends:.6f}")


def _chosen(column: str, cell: str, known: Mapping[str, str]) -> str:
    if cell.lower() not in known:
        raise ValueError(f"{column} {cell!r}: must be one of {', '.join(sorted(set(known.values()) - {''}))}")
    return known[cell.lower()]


def _slashed(path: str) -> str:
    """Paths of Windows, too."""
    return path.replace("\\", "/")


def _without_suffix(path: str) -> str:
    return re.sub(r"(?<=[^/])\.[^./]*$", "", _slashed(path))


def _printable(text: str) -> str:
    """Text that can be written as UTF-8: JSON may hold halves of characters."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
