"""MSP-Podcast (Lotfian & Busso 2019): spontaneous English speech from podcasts.

Labels are in `Labels/labels_consensus.csv` (`labels_concensus.csv` in older releases), with emotion, activation,
valence, dominance, speaker, gender and `Split_Set`. Recordings are in `Audios/` (`Audio/`), transcripts in
`Transcripts/`, word alignments in `ForceAligned/`, and each annotator's choice in `Labels/labels_detailed.csv`; the
latter three are used if they are there.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from jaxser.types import InputError, Reading, Rejection, Utterance, Word

from .alignments import read_words
from .parsing import MAX_TEXT_BYTES, decode_text, is_apple_double, read_file
from .tables import MISSING, Row, csv_rows, parse_number, read_text

EMOTIONS = {
    "A": "anger",
    "S": "sadness",
    "H": "happiness",
    "U": "surprise",
    "F": "fear",
    "D": "disgust",
    "C": "contempt",
    "N": "neutral",
    "O": "other",
    "X": "no agreement",
}
"""The emotion by its letter in `EmoClass`."""

EXPECTED = {
    73042: {  # release 1.8, as listed by EmoBox (data/msppodcast)
        "anger": 3218,
        "sadness": 2649,
        "happiness": 14285,
        "surprise": 4084,
        "fear": 1544,
        "disgust": 2593,
        "contempt": 3644,
        "neutral": 26009,
        "other": 817,
        "no agreement": 14199,
    }
}
"""Utterances per label of the releases whose counts are known, by the number of rows of the table of labels."""

TESTS = ("test1", "test2", "test3")
_SPLITS = {"train": "train", "development": "validation", "validation": "validation"}
_REQUIRED = ("filename", "emoclass", "split_set")
_DIMENSIONS = {"emoact": "activation", "emoval": "valence", "emodom": "dominance"}
_GENDERS = {"male": "M", "female": "F"}
_DETAIL = re.compile(r"\s*WORKER[^;]*;\s*([^;]*);", re.IGNORECASE)


def read(root: Path) -> Reading:
    """Read a release.

    The official split is by `Split_Set`, with Test1 for testing. `folds` has a fold of the same training and validation
    parts for each of the test sets. Utterances of Test3 without a label, which some releases keep back, are counted and
    skipped.

    Raises:
        InputError: if there is no table of labels, or if it has other columns.
    """
    release = _Release(Path(root))
    table = release.table
    text, _ = read_text(table)
    rows = 0
    for row in csv_rows(table, text, partial(_column_names, table), _REQUIRED, lambda cells, within: False):
        release.add(row)
        rows += 1
    if not rows:
        raise InputError(f"{table}: the table has no rows")
    assert rows == len(release.utterances) + len(release.rejected) + release.unlabelled
    facts: dict[str, Any] = {"table": table.name, "rows": rows}
    if release.unlabelled:
        facts["skipped"] = {"without published label": release.unlabelled}
    return Reading(
        tuple(release.utterances),
        tuple(release.rejected),
        EXPECTED.get(rows, {}),
        facts,
        _folds(release.utterances),
        ignored=tuple(release.ignored),
    )


def _folds(utterances: Sequence[Utterance]) -> tuple[Mapping[str, Any], ...]:
    """Return one fold per test set; empty if there is no training or validation part."""
    ids: dict[str, list[str]] = defaultdict(list)
    for one in utterances:
        ids[one.session if one.session in TESTS else one.split].append(one.id)
    if not (ids["train"] and ids["validation"]):
        return ()
    return tuple(
        {"name": test, "train": ids["train"], "validation": ids["validation"], "test": ids[test]}
        for test in TESTS
        if ids[test]
    )


@dataclass
class _Release:
    root: Path
    table: Path = field(init=False)
    audio: str = field(init=False)
    utterances: list[Utterance] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    ignored: list[Rejection] = field(default_factory=list)
    unlabelled: int = 0
    votes: Mapping[str, list[str]] = field(init=False)
    texts: Mapping[str, Path] = field(init=False)
    alignments: Mapping[str, Path] = field(init=False)

    def __post_init__(self) -> None:
        names = ("labels_consensus.csv", "labels_concensus.csv")
        found = [
            path for name in names for path in sorted(self.root.rglob(name)) if not is_apple_double(path)
        ]
        if not found:
            raise InputError(
                f"{self.root}: no table of MSP-Podcast's labels found (Labels/labels_consensus.csv)"
            )
        self.table = found[0]
        self.audio = next((name for name in ("Audios", "Audio") if (self.root / name).is_dir()), "Audios")
        self.votes = self._read_votes()
        self.texts = _by_stem(self.root / "Transcripts", ".txt")
        self.alignments = _by_stem(self.root / "ForceAligned", ".textgrid")

    def add(self, row: Row) -> None:
        """Add a row of the table of labels as an utterance, or reject it."""
        name = row.cells.get("filename", "")
        where = f"{self.table.name}:{row.line}"
        try:
            if row.problem:
                raise ValueError(row.problem)
            if row.cells["split_set"].lower() == "test3" and row.cells["emoclass"] in ("", *MISSING):
                self.unlabelled += 1
                return
            self.utterances.append(self._utterance(name, row.cells))
        except ValueError as error:
            self.rejected.append(Rejection(_stem(name), where, str(error)))

    def _utterance(self, name: str, cells: Mapping[str, str]) -> Utterance:
        stem, split = _stem(name), cells["split_set"].lower()
        if not name or "/" in name or "\\" in name:
            raise ValueError(f"FileName {name[:80]!r}: not the name of a file in {self.audio}/")
        if cells["emoclass"] not in EMOTIONS:
            raise ValueError(f"EmoClass {cells['emoclass']!r}: must be one of {', '.join(EMOTIONS)}")
        if split not in _SPLITS and split not in TESTS:
            raise ValueError(
                f"Split_Set {cells['split_set']!r}: must be Train, Development, Test1, Test2 or Test3"
            )
        speaker = cells.get("spkrid", "")
        words, flags = self._words(stem)
        return Utterance(
            id=stem,
            wav=f"{self.audio}/{name}",
            label=EMOTIONS[cells["emoclass"]],
            transcript=self._transcript(stem),
            words=words,
            speaker="" if speaker in MISSING or speaker.lower() == "unknown" else speaker,
            gender=_GENDERS.get(cells.get("gender", "").lower(), ""),
            session=split,
            split="test" if split == TESTS[0] else _SPLITS.get(split, ""),
            votes=tuple(self.votes.get(name, ())),
            attributes={
                attribute: value
                for column, attribute in _DIMENSIONS.items()
                if (value := _number(cells.get(column, ""))) is not None
            },
            flags=flags,
        )

    def _transcript(self, stem: str) -> str:
        if stem not in self.texts:
            return ""
        try:
            return " ".join(decode_text(read_file(self.texts[stem], MAX_TEXT_BYTES))[0].split())
        except ValueError as error:
            self._ignore(stem, self.texts[stem], f"transcript not used: {error}")
            return ""

    def _words(self, stem: str) -> tuple[tuple[Word, ...] | None, tuple[str, ...]]:
        if stem not in self.alignments:
            return None, ()
        try:
            return read_words(self.alignments[stem]), ()
        except ValueError as error:
            self._ignore(stem, self.alignments[stem], f"alignment not used: {error}")
            return None, ("bad_alignment",)

    def _ignore(self, stem: str, path: Path, reason: str) -> None:
        self.ignored.append(Rejection(stem, path.relative_to(self.root).as_posix(), reason))

    def _read_votes(self) -> Mapping[str, list[str]]:
        """Return the annotators' first choices by file name.

        Releases write them in a column `EmoClass_Major`, or as `WORKER00001; Angry; ...; A:3; ...` in `EmoDetail`.
        """
        table = self.table.with_name("labels_detailed.csv")
        votes: dict[str, list[str]] = defaultdict(list)
        if not table.is_file():
            return votes
        text, _ = read_text(table)
        for row in csv_rows(table, text, _lower, ("filename",), lambda cells, within: False):
            choice = row.cells.get("emoclass_major", "")
            if detail := _DETAIL.match(row.cells.get("emodetail", "")):
                choice = detail[1].strip()
            if row.problem or not choice or not row.cells.get("filename"):
                reason = row.problem or "no FileName, or no choice of an emotion"
                self.ignored.append(Rejection("", f"{table.name}:{row.line}", f"vote not used: {reason}"))
            else:
                votes[row.cells["filename"]].append(choice)
        return votes


def _column_names(table: Path, header: list[str]) -> list[str]:
    names = _lower(header)
    if missing := [name for name in _REQUIRED if name not in names]:
        raise InputError(f"{table}: no column {', '.join(missing)}; found {', '.join(names)[:200] or 'none'}")
    return names


def _lower(header: list[str]) -> list[str]:
    return [name.lower() for name in header]


def _number(cell: str) -> float | None:
    try:
        value = parse_number(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _stem(name: str) -> str:
    return name.removesuffix(".wav")


def _by_stem(folder: Path, suffix: str) -> dict[str, Path]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() == suffix)
    return {path.stem: path for path in paths if not is_apple_double(path)}
