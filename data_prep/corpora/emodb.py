"""EmoDB (Burkhardt et al. 2005): German, ten speakers, ten sentences, seven emotions.

It has 535 utterances. A file's name holds all annotations: `wav/03a01Fa.wav` is speaker 03, sentence a01, emotion F,
version a. The start times of its syllables are in `silb/03a01Fa.silb`; words are assembled from them. The sentences are
fixed, so the text carries no emotion. The re-release in audformat has the same recordings, and tables of the listeners'
agreement and of a split by speakers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from jaxser.features.audio import audio_duration
from jaxser.types import InputError, Reading, Rejection, Utterance, Word

from .parsing import MAX_TEXT_BYTES, find_audio, is_apple_double, printable, read_file
from .tables import csv_rows, parse_number, read_text

EMOTIONS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "T": "sadness",
    "N": "neutral",
}
EXPECTED = {
    "anger": 127,
    "boredom": 81,
    "disgust": 46,
    "fear": 69,
    "happiness": 71,
    "sadness": 62,
    "neutral": 79,
}
"""Utterances per label in the release."""

GENDERS = {
    **dict.fromkeys(("03", "10", "11", "12", "15"), "M"),
    **dict.fromkeys(("08", "09", "13", "14", "16"), "F"),
}
SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Blatt Papier befindet sich da oben neben dem Holzstück.",  # all 62 say Blatt, not Stück
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
MAX_MISMATCH = 1 / 3
"""Fraction of a sentence's letters that may differ in its syllable labels, which are spelled as spoken (`aknis`)."""

_NAME = re.compile(r"(03|08|09|1[0-6])(a0[12457]|b0[1239]|b10)([WLEAFTN])([a-z])", re.ASCII)
_SYLLABLE = re.compile(r"\s*([0-9]{1,4}(?:\.[0-9]{1,12})?)(?:\s+(\S*))?\s*", re.ASCII)
_RATING = re.compile(r"[0-9]+\s+(\w+)\.wav\s+([0-9]+,[0-9]+)\s+([0-9]+,[0-9]+)\s*")
_MAX_SYLLABLES = 6  # per word
_MIN_WORD_SECONDS = 0.03  # of a word before the end of the recording


def read(root: Path) -> Reading:
    """Read a release.

    If `erkennung.txt` is present, the attributes are the fractions of listeners who recognised the emotion and who
    found it natural. In the re-release, `db.emotion.csv` has the former, and the tables of the gold standard give
    the split. Flags: `no_alignment` (no `.silb` file), `bad_alignment` (the syllables do not match the sentence;
    words are None), `cut_alignment` (words after the end of the recording were dropped).

    Raises:
        InputError: if `root` holds no recordings of EmoDB.
    """
    release = _Release(Path(root))
    utterances = [release.utterance(path) for path in find_audio(release.root)]
    found = tuple(utterance for utterance in utterances if utterance is not None)
    if not found:
        raise InputError(f"{root}: no recordings of EmoDB found (wav/03a01Fa.wav, ...)")
    return Reading(found, tuple(release.rejected), EXPECTED, ignored=tuple(release.ignored))


@dataclass
class _Release:
    root: Path
    rejected: list[Rejection] = field(default_factory=list)
    ignored: list[Rejection] = field(default_factory=list)
    syllables: dict[str, Path] = field(init=False)
    ratings: dict[str, dict[str, float]] = field(init=False)
    splits: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        paths = sorted(self.root.rglob("*.silb"), reverse=True)  # the first of several copies wins
        self.syllables = {path.stem: path for path in paths if not is_apple_double(path)}
        self.ratings = _read_ratings(self.root / "erkennung.txt") or {
            name: {"recognised": value} for name, value in self._confidences().items()
        }
        self.splits = {
            Path(row.get("file", "")).stem: part
            for part in ("train", "test")
            for row in self._table(f"emotion.categories.{part}.gold_standard")
        }

    def _confidences(self) -> dict[str, float]:
        values = {}
        for row in self._table("emotion"):
            with suppress(ValueError):
                values[Path(row.get("file", "")).stem] = parse_number(row.get("emotion.confidence", ""))
        return values

    def _table(self, name: str) -> list[Mapping[str, str]]:
        """Return the rows of a table of the re-release; empty if it cannot be read."""
        path = self.root / f"db.{name}.csv"
        try:
            text, _ = read_text(path)
            rows = csv_rows(path, text, list, ("file",), lambda cells, within: False)
            return [row.cells for row in rows if not row.problem]
        except InputError:
            return []

    def utterance(self, path: Path) -> Utterance | None:
        """Return the utterance of a recording, or None if its file name is rejected."""
        parts = _NAME.fullmatch(path.stem)
        if parts is None:
            reason = "the file name is not speaker, sentence, emotion and version, as in 03a01Fa"
            self.rejected.append(self._rejection(path, reason))
            return None
        speaker, sentence, emotion, _ = parts.groups()
        words, flags = self._words(path, sentence)
        return Utterance(
            id=path.stem,
            wav=path.relative_to(self.root).as_posix(),
            label=EMOTIONS[emotion],
            transcript=SENTENCES[sentence],
            words=words,
            speaker=f"speaker{speaker}",
            gender=GENDERS[speaker],
            split=self.splits.get(path.stem, ""),
            attributes=self.ratings.get(path.stem, {}),
            flags=flags,
        )

    def _words(self, wav: Path, sentence: str) -> tuple[tuple[Word, ...] | None, tuple[str, ...]]:
        path = self.syllables.get(wav.stem)
        if path is None:
            return None, ("no_alignment",)
        try:
            words = join_syllables(read_syllables(read_file(path, MAX_TEXT_BYTES)), SENTENCES[sentence])
        except ValueError as error:
            self.ignored.append(self._rejection(path, f"alignment not used: {error}"))
            return None, ("bad_alignment",)
        kept = _before_end(words, audio_duration(wav))
        return kept, (() if kept == words else ("cut_alignment",))

    def _rejection(self, path: Path, reason: str) -> Rejection:
        where = printable(path.relative_to(self.root).as_posix())
        return Rejection(Path(where).stem, where, reason)


@dataclass(frozen=True)
class Syllable:
    """A syllable's label, and its start and end in seconds."""

    label: str
    start: float
    end: float


def read_syllables(content: bytes) -> list[Syllable]:
    """Parse a `.silb` file: a start time and a label per row.

    The label of the last row is `.`, the end of speech. Pauses, labelled `(` or not at all, are dropped.

    Raises:
        ValueError: if a row is malformed, the last row is missing, or times decrease.
    """
    rows = []
    for number, line in enumerate(content.decode("latin-1").split("\n"), start=1):
        if not line.strip():
            continue
        parts = _SYLLABLE.fullmatch(line)
        if parts is None:
            raise ValueError(f"line {number} is not a time and a syllable")
        rows.append((float(parts[1]), (parts[2] or "").lower()))
    if not rows:
        raise ValueError("the file is empty")
    if rows[-1][1] != ".":
        raise ValueError("the last row is not '.', the end of speech")
    for (start, _), (end, _) in pairwise(rows):
        if end < start:
            raise ValueError(f"{end:g} s follows {start:g} s")
    return [
        Syllable(label, start, end)
        for (start, label), (end, _) in pairwise(rows)
        if label.strip("(.") and end > start
    ]


def join_syllables(syllables: Sequence[Syllable], sentence: str) -> tuple[Word, ...]:
    """Join syllables to the words of the sentence, and return the words with their times.

    Labels are spelled as spoken and in several conventions (`haben bm`, `ge gera de`, `ak nis`). Every word is
    therefore assigned a run of one to six labels such that the total edit distance over the sentence is minimal (by
    dynamic programming). A label that fits neither of two words is appended to the first.

    Raises:
        ValueError: if more than `MAX_MISMATCH` of the letters differ, or a word is left without a syllable.
    """
    words = [re.sub(r"\W", "", word).lower() for word in sentence.split()]
    labels = _without_repetitions(syllables)
    # By number of labels used: the distance so far, and the negated ends of the words (so that ties favour long words).
    best: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
    for word in words:
        extended: dict[int, tuple[int, tuple[int, ...]]] = {}
        for begin, (distance, ends) in best.items():
            for end in range(begin + 1, min(begin + _MAX_SYLLABLES, len(labels)) + 1):
                spoken = "".join(syllable.label for syllable in labels[begin:end])
                candidate = (distance + _edit_distance(spoken, word), (*ends, -end))
                extended[end] = min(candidate, extended.get(end, candidate))
        best = extended
    distance, ends = best.get(len(labels), (len(sentence), ()))
    if distance > MAX_MISMATCH * sum(map(len, words)):
        spoken = " ".join(syllable.label for syllable in labels)
        raise ValueError(f"the syllables {spoken[:90]!r} do not match the sentence")
    bounds = [0, *(-end for end in ends)]
    return tuple(
        Word(word, labels[begin].start, labels[end - 1].end)
        for word, (begin, end) in zip(words, pairwise(bounds), strict=True)
    )


def _without_repetitions(syllables: Sequence[Syllable]) -> list[Syllable]:
    """Merge a label that begins with the one before it: `ge gera` is one syllable, labelled twice."""
    merged: list[Syllable] = []
    for syllable in syllables:
        if merged and syllable.label.startswith(merged[-1].label):
            syllable = Syllable(syllable.label, merged.pop().start, syllable.end)
        merged.append(syllable)
    return merged


@lru_cache(4096)
def _edit_distance(first: str, second: str) -> int:
    """Return the Levenshtein distance."""
    row = list(range(len(second) + 1))
    for i, letter in enumerate(first, start=1):
        above, row[0] = row[0], i
        for j, other in enumerate(second, start=1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (letter != other))
    return row[-1]


def _before_end(words: tuple[Word, ...], duration: float | None) -> tuple[Word, ...]:
    """Drop the words after the end of the recording, and cut the one that contains it."""
    if duration is None:
        return words
    kept = [word for word in words if word.start + _MIN_WORD_SECONDS <= duration]
    return tuple(Word(word.text, word.start, min(word.end, duration)) for word in kept)


def _read_ratings(path: Path) -> dict[str, dict[str, float]]:
    """Read the fractions of the 20 listeners by utterance; empty if the table is missing."""
    try:
        lines = read_file(path, MAX_TEXT_BYTES).decode("latin-1").splitlines()
    except ValueError:
        return {}
    rows = [parts for line in lines if (parts := _RATING.match(line))]
    return {
        row[1]: {
            "recognised": float(row[2].replace(",", ".")) / 100,
            "natural": float(row[3].replace(",", ".")) / 100,
        }
        for row in rows
    }
