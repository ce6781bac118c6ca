"""EmoDB (Burkhardt et al. 2005): German, ten speakers, ten sentences, seven emotions; 535 utterances.

Everything is in a file's name: `wav/03a01Fa.wav` is speaker 03, sentence a01, emotion F, version a. Beside it,
`silb/03a01Fa.silb` has where each syllable begins; words are joined from these. The sentences are fixed, so the text
carries no emotion.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import soundfile

from jaxser.types import InputError, Reading, Rejection, Utterance, Word

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
MISFIT = 1 / 3
"""Share of a sentence's letters that its syllable labels may have otherwise: they are written as spoken (`aknis`)."""

_NAME = re.compile(r"(03|08|09|1[0-6])(a0[12457]|b0[1239]|b10)([WLEAFTN])([a-z])", re.ASCII)
_ROW = re.compile(r"\s*([0-9]{1,4}(?:\.[0-9]{1,12})?)(?:\s+(\S*))?\s*", re.ASCII)
_HEARD = re.compile(r"[0-9]+\s+(\w+)\.wav\s+([0-9]+,[0-9]+)\s+([0-9]+,[0-9]+)\s*")
_SHORTEST = 0.03  # s of a word that must lie within its sound


def read(root: Path) -> Reading:
    """The utterances of a release; raises `InputError` if `root` holds none.

    Attributes, where `erkennung.txt` is there, are the shares of listeners who recognised the emotion and who found it
    natural. Flags: `no_alignment` (no `.silb`), `bad_alignment` (syllables that do not make up the sentence: words are
    None), `cut_alignment` (words after the end of the sound were dropped).
    """
    root = Path(root)
    release = _Release(root)
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in (".wav", ".flac"))
    utterances = [release.utterance(path) for path in paths if not path.name.startswith("._")]
    found = tuple(utterance for utterance in utterances if utterance is not None)
    if not found:
        raise InputError(f"{root}: no recordings of EmoDB there (wav/03a01Fa.wav, ...)")
    return Reading(found, tuple(release.rejected), EXPECTED)


@dataclass
class _Release:
    root: Path
    rejected: list[Rejection] = field(default_factory=list)
    syllables: dict[str, Path] = field(init=False)
    heard: dict[str, dict[str, float]] = field(init=False)

    def __post_init__(self) -> None:
        paths = sorted(self.root.rglob("*.silb"), reverse=True)  # of several the first in order remains
        self.syllables = {path.stem: path for path in paths if not path.name.startswith("._")}
        self.heard = _heard(self.root / "erkennung.txt")

    def utterance(self, path: Path) -> Utterance | None:
        parts = _NAME.fullmatch(path.stem)
        if parts is None:
            self._reject(path, "the name is not speaker, sentence, emotion and version as in 03a01Fa")
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
            attributes=self.heard.get(path.stem, {}),
            flags=flags,
        )

    def _words(self, wav: Path, sentence: str) -> tuple[tuple[Word, ...] | None, tuple[str, ...]]:
        place = self.syllables.get(wav.stem)
        if place is None:
            return None, ("no_alignment",)
        try:
            words = join_syllables(read_syllables(place.read_bytes()), SENTENCES[sentence])
        except OSError as error:
            self._reject(place, f"alignment not used: cannot be read ({error.strerror})")
            return None, ("bad_alignment",)
        except ValueError as error:
            self._reject(place, f"alignment not used: {error}")
            return None, ("bad_alignment",)
        heard = _within(words, _duration(wav))
        return heard, (() if heard == words else ("cut_alignment",))

    def _reject(self, path: Path, reason: str) -> None:
        where = path.relative_to(self.root).as_posix().encode("utf-8", "backslashreplace").decode()
        self.rejected.append(Rejection(Path(where).stem, where, reason))


@dataclass(frozen=True)
class Syllable:
    """A label and its time in seconds; pauses have none."""

    label: str
    start: float
    end: float


def read_syllables(content: bytes) -> list[Syllable]:
    """The rows `start label` of a `.silb` file; the last, `.`, is the end of speech, `(` and nothing are pauses.

    Raises `ValueError` where a row is something else or time runs backwards.
    """
    rows = []
    for number, line in enumerate(content.decode("latin-1").split("\n"), start=1):
        if not line.strip():
            continue
        parts = _ROW.fullmatch(line)
        if parts is None:
            raise ValueError(f"line {number} is not a time and a syllable")
        rows.append((float(parts[1]), (parts[2] or "").lower()))
    if not rows:
        raise ValueError("the file is empty")
    if rows[-1][1] != ".":
        raise ValueError("no last row '.' with the end of speech")
    for (start, _), (end, _) in pairwise(rows):
        if end < start:
            raise ValueError(f"{end:g} s follows {start:g} s")
    return [
        Syllable(label, start, end)
        for (start, label), (end, _) in pairwise(rows)
        if label.strip("(.") and end > start
    ]


def join_syllables(syllables: Sequence[Syllable], sentence: str) -> tuple[Word, ...]:
    """The words of the sentence with their times.

    Labels follow what was said, and their writers' habits (`haben bm`, `ge gera de`, `ak nis`), so words and runs of
    labels are matched by the least number of letters that differ over the whole sentence; what fits neither of two
    words ends the first. Raises `ValueError` where more than `MISFIT` of the letters differ, or a word is left without
    a syllable.
    """
    words = [re.sub(r"\W", "", word).lower() for word in sentence.split()]
    labels = _without_repeats(syllables)
    best: dict[int, tuple[int, tuple[int, ...]]] = {
        0: (0, ())
    }  # by labels used: misfit, ends of words, negated
    for word in words:
        nexts: dict[int, tuple[int, tuple[int, ...]]] = {}
        for begin, (misfit, ends) in best.items():
            for end in range(begin + 1, min(begin + _MOST_SYLLABLES, len(labels)) + 1):
                spoken = "".join(one.label for one in labels[begin:end])
                found = (misfit + _distance(spoken, word), (*ends, -end))
                nexts[end] = min(found, nexts.get(end, found))
        best = nexts
    misfit, ends = best.get(len(labels), (len(sentence), ()))
    if misfit > MISFIT * sum(map(len, words)):
        raise ValueError(f"the syllables {' '.join(one.label for one in labels)[:90]!r} are not the sentence")
    bounds = [0, *(-end for end in ends)]
    return tuple(
        Word(word, labels[begin].start, labels[end - 1].end)
        for word, (begin, end) in zip(words, pairwise(bounds), strict=True)
    )


def _without_repeats(syllables: Sequence[Syllable]) -> list[Syllable]:
    """`ge gera` is one label, written twice."""
    found: list[Syllable] = []
    for one in syllables:
        if found and one.label.startswith(found[-1].label):
            one = Syllable(one.label, found.pop().start, one.end)
        found.append(one)
    return found


_MOST_SYLLABLES = 6  # of a word


@lru_cache(4096)
def _distance(first: str, second: str) -> int:
    """Letters to change, to put in or to leave out (Levenshtein)."""
    row = list(range(len(second) + 1))
    for i, letter in enumerate(first, start=1):
        above, row[0] = row[0], i
        for j, other in enumerate(second, start=1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (letter != other))
    return row[-1]


def _within(words: tuple[Word, ...], duration: float | None) -> tuple[Word, ...]:
    """What of the words lies before the end of the sound."""
    if duration is None:
        return words
    kept = [word for word in words if word.start + _SHORTEST <= duration]
    return tuple(Word(word.text, word.start, min(word.end, duration)) for word in kept)


def _heard(path: Path) -> dict[str, dict[str, float]]:
    """Shares of 20 listeners by utterance, where the table is there."""
    try:
        lines = path.read_bytes().decode("latin-1").splitlines()
    except OSError:
        return {}
    rows = [parts for line in lines if (parts := _HEARD.match(line))]
    return {
        row[1]: {
            "recognised": float(row[2].replace(",", ".")) / 100,
            "natural": float(row[3].replace(",", ".")) / 100,
        }
        for row in rows
    }


def _duration(wav: Path) -> float | None:
    """Seconds; None where the file is no readable sound, which preparation will say."""
    try:
        return float(soundfile.info(str(wav)).duration)
    except (soundfile.LibsndfileError, OSError, RuntimeError, UnicodeError, ZeroDivisionError):
        return None
