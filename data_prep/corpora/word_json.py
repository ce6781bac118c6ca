"""Word times in JSON: Montreal Forced Aligner, Whisper and pocketsphinx."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .word_rows import TimedRow, word_of_transcript


def json_rows(text: str) -> tuple[Sequence[TimedRow], Mapping[str, Sequence[TimedRow]]]:
    """Return the rows of a file, and the rows of its tiers by name if it has tiers.

    Raises:
        ValueError: if it is not JSON, or in none of the known forms.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from None
    if isinstance(content, dict) and isinstance(content.get("tiers"), dict):
        return (), {name: tuple(_entries(tier)) for name, tier in content["tiers"].items()}
    return tuple(_words(content)), {}


def _entries(tier: Any) -> Iterator[TimedRow]:
    entries = tier.get("entries") if isinstance(tier, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, list) or len(entry) != 3:
            raise ValueError(f"a tier has the entry {str(entry)[:60]}, which is not start, end and text")
        yield str(entry[0]), str(entry[1]), str(entry[2])


def _words(content: Any) -> Iterator[TimedRow]:
    """Yield the words of a transcript, of its segments, or of a list of either."""
    if isinstance(content, dict):
        if isinstance(content.get("w"), list):  # pocketsphinx: beginning, duration and text
            yield from map(_pocketsphinx_word, content["w"])
            return
        for key in ("segments", "words", "word_segments"):
            if isinstance(content.get(key), list):
                content = content[key]
                break
        else:
            raise ValueError("no words with times; write them with the option for word timestamps")
    for entry in content if isinstance(content, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("words"), list):
            yield from map(_whisper_word, entry["words"])
        else:
            yield _whisper_word(entry)


def _whisper_word(entry: Any) -> TimedRow:
    if isinstance(entry, list):  # a named tuple of faster-whisper: start, end, word, probability
        entry = dict(zip(("start", "end", "word"), entry, strict=False))
    word = entry.get("word") if isinstance(entry, dict) else None
    if not isinstance(word, str):
        raise ValueError("no words with times; write them with the option for word timestamps")
    if entry.get("start") is None or entry.get("end") is None:
        raise ValueError(f"the word {word.strip()[:40]!r} has no times")
    return str(entry["start"]), str(entry["end"]), word_of_transcript(word)


def _pocketsphinx_word(entry: Any) -> TimedRow:
    try:
        start, length, word = float(entry["b"]), float(entry["d"]), str(entry["t"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{str(entry)[:60]} is not a word with b, d and t") from None
    return repr(start), repr(start + length), word
