"""Word times in subtitles: SRT and WebVTT."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from .word_rows import TimedRow, word_of_transcript

_TIME = r"(?:[0-9]+:)?[0-9]{1,2}:[0-9]{2}[.,][0-9]{1,3}"
_CUE = re.compile(rf"\s*({_TIME})\s*-->\s*({_TIME})[^\n]*")
_STAMP = re.compile(rf"<({_TIME})>")
_MARKED = re.compile(r"<u>(.*?)</u>", re.DOTALL)
_TAG = re.compile(r"</?[a-zA-Z][^>]*>")


def subtitle_rows(text: str) -> list[TimedRow]:
    """Parse subtitles.

    Supported are cues of one word, cues in which the word that is spoken is underlined (Whisper's `highlight_words`),
    and cues with a time before each further word (WebVTT).

    Raises:
        ValueError: if there are no cues, or one has several words without times.
    """
    cues = list(_cues(text))
    if not cues:
        raise ValueError("no cues with times (00:00:01.000 --> 00:00:02.000)")
    is_marked = any(_MARKED.search(body) for _, _, body in cues)
    has_stamps = any(_STAMP.search(body) for _, _, body in cues)
    rows: list[TimedRow] = []
    for start, end, body in cues:
        if is_marked:
            rows += [(start, end, word_of_transcript(_TAG.sub("", word))) for word in _MARKED.findall(body)]
        elif has_stamps:
            rows += _stamped(start, end, body)
        else:
            rows.append((start, end, _one_word(body)))
    return rows


def _cues(text: str) -> Iterator[TimedRow]:
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.split("\n")
        for number, line in enumerate(lines):
            if cue := _CUE.fullmatch(line):
                yield _seconds(cue[1]), _seconds(cue[2]), "\n".join(lines[number + 1 :]).strip()
                break


def _stamped(start: str, end: str, body: str) -> Iterator[TimedRow]:
    """Yield the words of the lines with times; other lines repeat what was spoken before."""
    body = "\n".join(line for line in body.split("\n") if _STAMP.search(line))
    parts = _STAMP.split(body)
    times = [start, *map(_seconds, parts[1::2]), end]
    for (first, last), word in zip(pairwise(times), parts[0::2], strict=True):
        if text := _TAG.sub("", word).strip():
            yield first, last, _one_word(text)


def _one_word(text: str) -> str:
    words = _TAG.sub("", text).split()
    if len(words) > 1:
        raise ValueError(f"a cue of several words ({text[:40]!r}) without times; write one word per cue")
    return word_of_transcript(words[0]) if words else ""


def _seconds(stamp: str) -> str:
    *hours, minutes, seconds = stamp.replace(",", ".").split(":")
    return repr(3600 * int(hours[0] if hours else 0) + 60 * int(minutes) + float(seconds))
