"""Your own corpus: a table with one row per utterance, or another layout.

    path,label,speaker,text
    clips/0001.wav,angry,anna,Give it back!

`path` is required, and `label`, `votes` (what each rater chose: `angry;angry;sad` or `angry:2;sad:1`) or one of
`valence`, `arousal`, `activation` and `dominance` (numbers on any scale).
Optional columns are `id` (default: the path without its suffix), `text`, `speaker`, `gender` (F, M), `session`,
`dialogue`, `split` (train, validation, test), `start` and `end` (seconds: the row is that part of a longer recording)
and `alignment` (a file with the times of the words). Paths are relative to the root. Without sound (recipe `words`),
`text` is required instead of `path`.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jaxser.features.audio import split_span
from jaxser.features.paths import OUTSIDE, leaves
from jaxser.types import InputError, Reading, Rejection, Utterance

from .alignments import read_alignment
from .columns import ATTRIBUTES, COLUMNS, REQUIRED, SPLITS, VOTES, Columns, read_columns
from .layouts import find_layout
from .parsing import find_file, is_copy
from .tables import MISSING, Row, parse_number

REQUIRED_WITHOUT_SOUND = ("text", "label")
GENDERS = {
    **dict.fromkeys(("f", "female", "woman", "w"), "F"),
    **dict.fromkeys(("m", "male", "man"), "M"),
    **dict.fromkeys(("", "unknown", "unk", "u", "?", "-", "other", "o", "x", "nonbinary", "non-binary"), ""),
}
"""The gender of an utterance by its cell in lower case; other cells are unknown too, with a warning."""

_MAX_VOTES = 1000  # for one label of an utterance

_MAY_BE_MISSING = (
    *(*ATTRIBUTES, VOTES),
    *("speaker", "gender", "session", "dialogue", "split", "start", "end", "alignment"),
)


def read(
    root: Path,
    metadata: str | Path | None = None,
    words_tier: str = "",
    allow_outside_root: bool = False,
    has_sound: bool = True,
    columns: str = "",
) -> Reading:
    """Read a corpus in one of the layouts of `layouts.py`.

    Every row is an utterance, a byte-identical copy of one, or rejected with its line number. Audio files are not
    opened: missing ones are rejected later, when features are computed. Flags: `bad_alignment` (the alignment file is
    missing or contradicts itself; words are None), `no_alignment` (it has no words, but the table has a text),
    `mended_alignment` (words that overlapped by up to 20 ms were cut).

    Args:
        root: the folder that paths are relative to.
        metadata: the table; by default `metadata.csv` or `metadata.jsonl` in `root`, or what else is recognised there.
        words_tier: the tier of TextGrids that contains the words; "" chooses it by its name.
        allow_outside_root: whether alignment files may be outside the root.
        has_sound: whether every row has a recording. Otherwise rows without an id and a path are named by their line.
        columns: the names of the table's columns, such as "path=FileName,label=EmoClass".

    Raises:
        InputError: if there is no table, it has no rows, a required column is missing, or a quote is not closed.
        UsageError: if `metadata` does not exist, or `columns` is malformed.
    """
    required = REQUIRED if has_sound else REQUIRED_WITHOUT_SOUND
    names = Columns(read_columns(columns) if columns else {}, required)
    layout = find_layout(Path(root), metadata, names)
    corpus = _Corpus(Path(root), words_tier, allow_outside_root, has_sound)
    rows = 0
    for where, row in layout.rows:
        corpus.add(where, row)
        rows += 1
    if not rows:
        raise InputError(f"{root}: no utterances ({layout.name})")
    assert rows == len(corpus.utterances) + len(corpus.rejected) + corpus.copies
    facts: dict[str, Any] = {**layout.facts, "rows": rows, "layout": layout.name, "columns": layout.columns}
    if corpus.mended:
        facts["mended_overlaps"] = corpus.mended
    if corpus.ignored_columns:
        facts["ignored_columns"] = sorted(corpus.ignored_columns)
    return Reading(
        tuple(corpus.utterances.values()),
        tuple(corpus.rejected),
        facts=facts,
        ignored=tuple(corpus.ignored),
        copies=corpus.copies,
        warnings=(*corpus.warnings(), *layout.warnings),
    )


@dataclass
class _Corpus:
    """The rows of a table so far; `missing` and `genders` count cells that are taken as unknown."""

    root: Path
    words_tier: str = ""
    allow_outside_root: bool = False
    has_sound: bool = True
    utterances: dict[str, Utterance] = field(default_factory=dict)
    rejected: list[Rejection] = field(default_factory=list)
    ignored: list[Rejection] = field(default_factory=list)
    copies: int = 0
    mended: int = 0
    ignored_columns: set[str] = field(default_factory=set)
    missing: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    genders: Counter[str] = field(default_factory=Counter)

    def add(self, where: str, row: Row) -> None:
        """Add a row as an utterance, count it as a copy, or reject it."""
        self.ignored_columns.update(row.cells.keys() - set(COLUMNS))
        identity = ""
        try:
            if row.problem:
                raise ValueError(row.problem)
            cells = self._known(row.cells)
            named = cells.get("id", "") or _without_suffix(cells["path"])
            identity = unicodedata.normalize(
                "NFC", named or ("" if self.has_sound else f"line{row.line:06d}")
            )
            utterance = self._utterance(identity, cells)
        except ValueError as error:
            self.rejected.append(Rejection(identity, where, str(error)))
            return
        utterance, problem = self._aligned(utterance, cells.get("alignment", ""))
        first = self.utterances.setdefault(identity, utterance)
        if first is utterance:
            self.ignored += [Rejection(identity, where, problem)] if problem else []
        elif is_copy(self.root, first, utterance):
            self.copies += 1
        else:
            self.rejected.append(Rejection(identity, where, f"the same id as {first.wav or 'another row'}"))

    def warnings(self) -> list[str]:
        """Return one sentence for each column with cells that are taken as unknown."""
        found = {
            f"{column} is unknown where the table says {_counted(cells)}"
            for column, cells in self.missing.items()
        }
        if self.genders:
            found.add(f"gender is unknown where it is neither F nor M: {_counted(self.genders)}")
        return sorted(found)

    def _known(self, row: Mapping[str, str]) -> dict[str, str]:
        """Return the cells of known columns, without those that stand for a missing value."""
        cells = {"path": "", "label": "", **{name: row[name] for name in COLUMNS if name in row}}
        for column in _MAY_BE_MISSING:
            if cells.get(column) in MISSING:
                self.missing[column][cells[column]] += 1
                cells[column] = ""
        return cells

    def _utterance(self, identity: str, cells: Mapping[str, str]) -> Utterance:
        attributes, votes = _attributes(cells), read_votes(cells.get(VOTES, ""))
        label = cells["label"] or _majority(votes)
        for column in REQUIRED if self.has_sound else ("label",):
            if not cells[column] and not (column == "label" and (attributes or votes)):
                raise ValueError(f"no {column}")
        for column, cell in {**cells, "id": identity, "text": ""}.items():
            if control := re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", cell):
                raise ValueError(f"{column} has the control character U+{ord(control[0]):04X}")
        path = find_file(self.root, _forward_slashes(cells["path"])) if cells["path"] else ""
        split = cells.get("split", "")
        if split and SPLITS.get(split.lower()) == "":
            self.missing["split"][split] += 1
        gender = cells.get("gender", "")
        if gender.lower() not in GENDERS:
            self.genders[gender] += 1
        return Utterance(
            id=identity,
            wav=path + _span(cells.get("start", ""), cells.get("end", "")),
            label=label,
            transcript=cells.get("text", ""),
            speaker=unicodedata.normalize("NFC", cells.get("speaker", "")),
            gender=GENDERS.get(gender.lower(), ""),
            session=unicodedata.normalize("NFC", cells.get("session", "")),
            dialogue=unicodedata.normalize("NFC", cells.get("dialogue", "")),
            split=_split(split),
            votes=votes,
            attributes=attributes,
        )

    def _aligned(self, utterance: Utterance, alignment: str) -> tuple[Utterance, str]:
        """Return the utterance with its words, and why the alignment is not used, "" if it is."""
        if not alignment:
            return utterance, ""
        relative = find_file(self.root, _forward_slashes(alignment))
        path = self.root / relative
        try:
            if not self.allow_outside_root and leaves(self.root, relative):
                raise ValueError(OUTSIDE)
            names = (utterance.id, Path(split_span(utterance.wav)[0]).stem)
            timed = read_alignment(path, self.words_tier, utterance.speaker, names)
        except ValueError as error:
            return (
                replace(utterance, flags=("bad_alignment",)),
                f"alignment {alignment} not used: {str(error).removeprefix(f'{path}: ')}",
            )
        if not timed.words and utterance.transcript:
            problem = f"alignment {alignment} not used: it has no words, so the text is used"
            return replace(utterance, flags=("no_alignment",)), problem
        self.mended += timed.mended
        flags = ("mended_alignment",) if timed.mended else ()
        return replace(utterance, words=timed.words, flags=flags), ""


def read_votes(cell: str) -> tuple[str, ...]:
    """Return the votes in a cell such as "angry;angry;sad" or "angry:2;sad:1".

    Raises:
        ValueError: if a label is missing, or a number is not a number of raters.
    """
    votes: list[str] = []
    for entry in filter(None, map(str.strip, cell.split(";"))):
        label, colon, number = (part.strip() for part in entry.rpartition(":"))
        label, number = (label, number) if colon else (number, "1")
        if not label or not re.fullmatch(r"[0-9]{1,4}", number) or int(number) > _MAX_VOTES:
            raise ValueError(
                f"votes {cell!r}: {entry!r} is not a label, or a label and its number as in sad:2"
            )
        votes += [label] * int(number)
    return tuple(votes)


def _majority(votes: Sequence[str]) -> str:
    """Return the label with more votes than any other, or "" if there is none."""
    counts = Counter(votes).most_common(2)
    return counts[0][0] if counts and (len(counts) == 1 or counts[0][1] > counts[1][1]) else ""


def _attributes(cells: Mapping[str, str]) -> dict[str, float]:
    """Return the numeric attributes of a row, without those that are missing."""
    found = {}
    for name in ATTRIBUTES:
        if cell := cells.get(name, ""):
            try:
                found[name] = parse_number(cell)
            except ValueError:
                raise ValueError(f"{name} {cell!r}: not a number") from None
    return found


def _span(start_cell: str, end_cell: str) -> str:
    """Return the suffix of a path for a part of the recording, as `jaxser.features.audio.read_audio` expects it."""
    if not start_cell and not end_cell:
        return ""
    try:
        start = parse_number(start_cell) if start_cell else 0.0
        end = parse_number(end_cell) if end_cell else math.inf
    except ValueError:
        raise ValueError(f"start {start_cell!r}, end {end_cell!r}: not numbers of seconds") from None
    if not 0 <= start < end or math.isinf(start):
        raise ValueError(
            f"start {start_cell or 0}, end {end_cell or 'none'}: start must be 0 or more, and end after start"
        )
    return f"#t={start:.6f}" + ("" if math.isinf(end) else f",{end:.6f}")


def _split(cell: str) -> str:
    if cell.lower() not in SPLITS:
        raise ValueError(f"split {cell!r}: must be one of train, validation, test")
    return SPLITS[cell.lower()]


def _forward_slashes(path: str) -> str:
    """Convert Windows paths."""
    return path.replace("\\", "/")


def _without_suffix(path: str) -> str:
    return re.sub(r"(?<=[^/])\.[^./]*$", "", _forward_slashes(path))


def _counted(cells: Mapping[str, int], number: int = 5) -> str:
    shown = sorted(cells, key=lambda cell: (-cells[cell], cell))[:number]
    more = f" and {len(cells) - number} others" if len(cells) > number else ""
    return ", ".join(f"{cell[:40]!r} ({cells[cell]})" for cell in shown) + more
