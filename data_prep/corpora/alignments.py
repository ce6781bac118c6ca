"""Word alignments: the choice of a reader by the file's name, TextGrids, and tables."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxser.types import InputError, Word

from .parsing import decode_text, parse_wdseg, read_file
from .subtitles import subtitle_rows
from .tables import best_delimiter, split_rows
from .word_json import json_rows
from .word_lines import ctm_rows, htk_rows, mfa_rows, partitur_rows
from .word_rows import TimedRow, TimedWords, join_rows

WORD_TIERS = ("words", "word", "ort-mau", "ort")
"""Names of tiers of words, in lower case and in order of preference: Montreal Forced Aligner, P2FA, WebMAUS.

With several speakers, they follow the speaker's name: `anna - words`.
"""

_WORD_COLUMNS = ("start", "end", "word")
_MAX_BYTES = 10**8
_TOKEN = re.compile(r'"((?:[^"]|"")*+)"|(<\w+>)|![^\r\n]*|([^\s"=<]+)|.', re.DOTALL)
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?", re.ASCII | re.IGNORECASE)


def read_words(
    path: Path, tier: str = "", speaker: str = "", names: Collection[str] = ()
) -> tuple[Word, ...]:
    """Read words and times from an alignment file, as `read_alignment` does."""
    return read_alignment(path, tier, speaker, names).words


def read_alignment(path: Path, tier: str = "", speaker: str = "", names: Collection[str] = ()) -> TimedWords:
    """Read words and times, in seconds of the utterance's recording, from an alignment file.

    Supported are Sphinx's `.wdseg`; Praat's `.TextGrid` as text, long or short; JSON and CSV of Montreal Forced
    Aligner; JSON of Whisper, faster-whisper, WhisperX and pocketsphinx; CTM; HTK's `.lab` and `.mlf`; `.par` of
    WebMAUS; `.srt` and `.vtt` with words; and tables of `start,end,word` with or without a header. Pauses and noises
    are removed, and short overlaps mended.

    Args:
        path: the file.
        tier: the tier that contains the words; "" chooses one of `WORD_TIERS`.
        speaker: the speaker whose tier is chosen if several have words.
        names: the names of the recording, for files with several of them.

    Raises:
        ValueError: if the file cannot be read or is malformed, or if times overlap or decrease.
    """
    text, _ = decode_text(read_file(path, _MAX_BYTES))
    if "\0" in text:
        raise ValueError("contains a NUL byte, so this is not text")
    suffix = path.suffix.lower()
    if suffix == ".wdseg":
        return TimedWords(parse_wdseg(text.split("\n")))
    if suffix == ".textgrid":
        return join_rows(_tier_rows(parse_textgrid(text), _composed(tier), _composed(speaker)))
    if suffix == ".json":
        rows, tiers = json_rows(text)
        return join_rows(_named_rows(tiers, tier, speaker) if tiers else rows)
    if suffix in _LINES:
        return join_rows(_LINES[suffix](text, names))
    if suffix == ".csv" and (table_tiers := mfa_rows(text)):
        return join_rows(_named_rows(table_tiers, tier, speaker))
    return join_rows(_table_rows(path, text), one_word_each=False)


_LINES: Mapping[str, Callable[[str, Collection[str]], Sequence[TimedRow]]] = {
    ".ctm": ctm_rows,
    ".lab": htk_rows,
    ".mlf": htk_rows,
    ".par": lambda text, names: partitur_rows(text),
    ".srt": lambda text, names: subtitle_rows(text),
    ".vtt": lambda text, names: subtitle_rows(text),
}


def _named_rows(tiers: Mapping[str, Sequence[TimedRow]], tier: str, speaker: str) -> Sequence[TimedRow]:
    named = [Tier(_composed(name), tuple(rows)) for name, rows in tiers.items()]
    return _tier_rows(named, _composed(tier), _composed(speaker))


@dataclass(frozen=True)
class Tier:
    """A tier of intervals, each with start, end and text as they are in the file."""

    name: str
    intervals: tuple[TimedRow, ...]

    @property
    def has_words(self) -> bool:
        """Whether an interval has a text."""
        return any(text.strip() for _, _, text in self.intervals)


def parse_textgrid(text: str) -> list[Tier]:
    """Parse the tiers of intervals of a TextGrid; tiers of points are left out.

    As in Praat, only the texts in quotes, the numbers that stand alone and the flags count. The long and the short form
    differ in the rest.

    Raises:
        ValueError: if the text is not a complete TextGrid.
    """
    tokens = _tokens(unicodedata.normalize("NFC", text))
    try:
        kind, content = next(tokens), next(tokens)
        if not kind.startswith('"ooTextFile') or content != '"TextGrid':
            raise ValueError("not a TextGrid in text form; save it in Praat as a text file")
        _numbers(tokens, 2)
        if next(tokens) != "<exists>":
            return []
        tiers = []
        for _ in range(_count(tokens)):
            kind, name = _texts(tokens, 2)
            _numbers(tokens, 2)
            if kind not in ("IntervalTier", "TextTier"):
                raise ValueError(f"a tier of the unknown class {kind[:40]!r}")
            times = 2 if kind == "IntervalTier" else 1
            rows = [(*_numbers(tokens, times), *_texts(tokens, 1)) for _ in range(_count(tokens))]
            if kind == "IntervalTier":
                tiers.append(Tier(name.strip(), tuple((row[0], row[1], row[2]) for row in rows)))
        if next(tokens, None) is not None:
            raise ValueError("the TextGrid has more intervals or tiers than it states")
    except StopIteration:
        raise ValueError("the TextGrid is cut short or damaged") from None
    return tiers


def _tokens(text: str) -> Iterator[str]:
    """Yield the texts, as `"text` with doubled quotes resolved, the numbers and the flags of a Praat file."""
    for token in _TOKEN.finditer(text):
        quoted, flag, word = token.groups()
        if quoted is not None:
            yield '"' + quoted.replace('""', '"')
        elif flag or (word and _NUMBER.fullmatch(word)):
            yield flag or word


def _texts(tokens: Iterator[str], number: int) -> list[str]:
    found = [next(tokens) for _ in range(number)]
    if not all(token.startswith('"') for token in found):
        raise ValueError(f"a malformed TextGrid: a text in quotes expected, found {found[0][:40]!r}")
    return [token[1:] for token in found]


def _numbers(tokens: Iterator[str], number: int) -> list[str]:
    found = [next(tokens) for _ in range(number)]
    if not all(_NUMBER.fullmatch(token) for token in found):
        raise ValueError(f"a malformed TextGrid: a number expected, found {found[0][:40]!r}")
    return found


def _count(tokens: Iterator[str]) -> int:
    [number] = _numbers(tokens, 1)
    if not number.isdecimal():
        raise ValueError(f"a malformed TextGrid: the number {number[:40]} of intervals or tiers")
    return int(number)


def _tier_rows(tiers: Sequence[Tier], wanted: str, speaker: str) -> tuple[TimedRow, ...]:
    """Return the intervals of the tier of words; `wanted` and `speaker` are in composed form (NFC)."""
    for name in (wanted.lower(),) if wanted else WORD_TIERS:
        named = [tier for tier in tiers if name in (tier.name.lower(), _without_speaker(tier.name))]
        spoken = [tier for tier in named if tier.has_words]
        if len(spoken) > 1:
            own = [
                tier for tier in spoken if speaker and tier.name.lower().startswith(f"{speaker.lower()} - ")
            ]
            if len(own) != 1:
                names = ", ".join(tier.name for tier in spoken)
                raise ValueError(
                    f"several tiers of words ({names}); choose one by --words_tier or by the speaker"
                )
            spoken = own
        if spoken:
            return spoken[0].intervals
    known = (wanted.lower(),) if wanted else WORD_TIERS
    if any(_without_speaker(tier.name) in known or tier.name.lower() in known for tier in tiers):
        return ()
    names = ", ".join(tier.name for tier in tiers) or "none"
    expected = f"no tier {wanted}" if wanted else "no tier of words"
    raise ValueError(f"{expected} among the tiers ({names}); choose one by --words_tier")


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _without_speaker(name: str) -> str:
    return name.lower().rpartition(" - ")[2].strip()


def _table_rows(path: Path, text: str) -> Iterator[TimedRow]:
    lines = [line for line in re.split(r"\r\n|\n|\r", text[: 10**5]) if line.strip()]
    order = [0, 1, 2]
    try:
        for index, row in enumerate(split_rows(path, text, best_delimiter(lines, len(_WORD_COLUMNS)))):
            names = [cell.lower() for cell in row.cells]
            if index == 0 and sorted(names) == sorted(_WORD_COLUMNS):
                order = [names.index(column) for column in _WORD_COLUMNS]
            elif any(row.cells):
                if len(row.cells) != len(_WORD_COLUMNS) or row.problem:
                    raise ValueError(f"line {row.line} is not start, end and word")
                start, end, word = (row.cells[place] for place in order)
                yield start, end, word
    except InputError as error:
        raise ValueError(str(error).removeprefix(f"{path}: ")) from None
