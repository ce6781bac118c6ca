"""Rows of words and times in alignment files, and their conversion to words."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from jaxser.features.text import without_punctuation
from jaxser.types import Word

from .tables import parse_number

TimedRow = tuple[str, str, str]
"""Start and end in seconds, and text, as they are in the file."""

MAX_OVERLAP = 0.02
"""The longest overlap of two words, in seconds, that is mended: aligners round times to frames of 10 or 20 ms."""

_ROUNDING = 1e-6  # s
_NOT_A_WORD = re.compile(r"<.*>|\[.*\]|\{.*\}|sil|sp|spn", re.IGNORECASE | re.DOTALL)
_VARIANT = re.compile(r"\([0-9]+\)$", re.ASCII)


@dataclass(frozen=True)
class TimedWords:
    """Words with times, and the number of overlaps between them that were mended."""

    words: tuple[Word, ...]
    mended: int = 0


def join_rows(rows: Iterable[TimedRow], one_word_each: bool = True) -> TimedWords:
    """Convert rows to words in lower case, without pauses and noises.

    If a row begins up to `MAX_OVERLAP` before the end of the one before, that one is cut.

    Args:
        rows: the rows, in the order of time.
        one_word_each: whether a row of several words is an error.

    Raises:
        ValueError: if times are not numbers, or they decrease or overlap more.
    """
    found: list[tuple[str, float, float]] = []
    mended = 0
    for start_cell, end_cell, cell in rows:
        try:
            start, end = parse_number(start_cell), parse_number(end_cell)
        except ValueError:
            raise ValueError(f"{start_cell!r} to {end_cell!r} are not numbers of seconds") from None
        before, begin, latest = found[-1] if found else ("", 0.0, 0.0)
        overlap = latest - start
        if _ROUNDING < overlap <= MAX_OVERLAP + _ROUNDING and begin <= start and found:
            found[-1] = (before, begin, start)
            mended += 1
            latest = start
        if not latest - _ROUNDING <= start <= end < math.inf:
            raise ValueError(f"{start:g} to {end:g} s does not follow {latest:g} s")
        word = cell.strip().lower()
        if one_word_each and len(word.split()) > 1:
            raise ValueError(f"an interval of several words ({word[:40]!r}), so the tier is not one of words")
        found.append((word, start, end))
    words = (Word(word, start, end) for word, start, end in found if word and not _NOT_A_WORD.fullmatch(word))
    return TimedWords(tuple(words), mended)


def word_of_transcript(text: str) -> str:
    """Return a word without punctuation and variant: `Hello,` and `Hello(2)` are Hello."""
    return without_punctuation(_VARIANT.sub("", text.strip()))
